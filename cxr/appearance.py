"""Cheap rules about a model's input that need no model: has it a radiograph's greys, and is black really air?

The limits were set on 790 frontal radiographs of two hospitals, adults and
children: they flag one of them, and 789 of the same films inverted.

Shape suffixes: H rows, W columns.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cxr.radiograph import Caution, WarningCode

MIN_CONTRAST = 0.04
"""Standard deviation of the greys, as a share of the range; of the 790 films none was under 0.08."""

MIN_ENTROPY_BITS = 5.0
"""Entropy of the 256 greys; of the 790 films, at 224 pixels a side, none was under 5.6."""

_MIN_PIXELS = 64 * 64
"""Smaller inputs have too few pixels to fill a histogram of 256 greys."""


def appearance_cautions(image_HW: NDArray[np.uint8]) -> Iterator[Caution]:
    """Say where a model's input (uint8, as `preprocess` makes it) does not look like a frontal radiograph."""
    if has_few_greys(image_HW):
        yield Caution(WarningCode.FEW_GREYS, "The image has hardly any contrast, or fewer greys than a radiograph has.")
    elif polarity(image_HW) < 0:
        yield Caution(WarningCode.LOOKS_INVERTED, "The image looks as if black and white were exchanged.")


def has_few_greys(image_HW: NDArray[np.uint8]) -> bool:
    """Tell whether an image is blank, or made of few greys, as drawings and scans of text are."""
    if image_HW.std() < MIN_CONTRAST * 255:
        return True
    share_G = np.bincount(image_HW.ravel(), minlength=256) / image_HW.size
    share_G = share_G[share_G > 0]
    return image_HW.size >= _MIN_PIXELS and float(-(share_G * np.log2(share_G)).sum()) < MIN_ENTROPY_BITS


def polarity(image_HW: NDArray[np.uint8]) -> float:
    """Measure how much brighter the mediastinum is than the lungs, and the picture than its upper corners.

    Bone and soft tissue are white in MONOCHROME2, air black.

    Returns:
        From -1.5 to 1.5, negative where black and white seem exchanged.
    """
    height, width = image_HW.shape
    corner_rows, corner_columns = max(1, height // 8), max(1, width // 8)
    middle_hW = image_HW[height // 4 : 3 * height // 4]
    mediastinum = _mean(middle_hW, 0.45, 0.55)
    lungs = (_mean(middle_hW, 0.20, 0.38) + _mean(middle_hW, 0.62, 0.80)) / 2
    top_hW = image_HW[:corner_rows]
    corners = (top_hW[:, :corner_columns].mean() + top_hW[:, -corner_columns:].mean()) / 2
    return float(mediastinum - lungs - 0.5 * (corners - image_HW.mean())) / 255


def _mean(image_HW: NDArray[np.uint8], left: float, right: float) -> float:
    """Mean grey of an upright strip between two shares of the width."""
    width = image_HW.shape[1]
    return float(image_HW[:, int(left * width) : max(int(right * width), int(left * width) + 1)].mean())
