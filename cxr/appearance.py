"""Rules about a model's input that need no model: grey levels, polarity, coarse shape of a chest.

The limits were set on 790 frontal radiographs of two hospitals, adults and
children, of which they flag fewer than one in a hundred.

Shape suffixes: H rows, W columns, T thumbnail pixels, G grey levels.
"""

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr.phantom import draw_phantom
from cxr.warning_codes import ImageWarning, WarningCode

MIN_CONTRAST = 0.04
"""Standard deviation of the grey levels, as a share of the range; the 790 radiographs have at
least 0.08."""

MIN_ENTROPY_BITS = 5.0
"""Entropy of the 256 grey levels; the 790 radiographs, at 224 pixels a side, have at least 5.6."""

MIN_LIKENESS = 0.15
"""Correlation with the phantom, 16 by 16 pixels; of the 790 radiographs one in a hundred adults'
and no child's is under it."""

_GREYS = np.arange(256.0)
_SQUARES = np.square(_GREYS)

_THUMBNAIL_SIDE = 16
_PHANTOMS = 8

_MIN_PIXELS = 64 * 64
"""Smaller inputs have too few pixels to fill a histogram of 256 grey levels."""


def appearance_warnings(image: Image.Image) -> Iterator[ImageWarning]:
    """Yield a warning if a model's input does not look like a frontal radiograph.

    Args:
        image: mode L, as `model_input` returns it.
    """
    if _has_few_greys(image):
        yield ImageWarning(
            WarningCode.FEW_GREYS,
            "The image has hardly any contrast, or fewer greys than a radiograph has.",
        )
        return
    shape = likeness(image)
    if shape < -MIN_LIKENESS and polarity(np.asarray(image)) < 0:
        yield ImageWarning(
            WarningCode.LOOKS_INVERTED, "The image looks as if black and white were exchanged."
        )
    elif shape < MIN_LIKENESS:
        yield ImageWarning(
            WarningCode.LOOKS_UNLIKE_A_CHEST,
            "The image does not have the coarse shape of an upright frontal chest.",
        )


def _has_few_greys(image: Image.Image) -> bool:
    """Tell whether an image is blank, or has few grey levels, as drawings and scans of text are."""
    num_pixels = image.width * image.height
    # Pillow counts grey levels several times as fast as numpy; the counts give the spread too.
    counts_G = np.array(image.histogram(), dtype=np.float64)
    mean = float(_GREYS @ counts_G) / num_pixels
    if float(_SQUARES @ counts_G) / num_pixels - mean**2 < (MIN_CONTRAST * 255) ** 2:
        return True
    bits = math.log2(num_pixels) - float(counts_G @ np.log2(np.maximum(counts_G, 1))) / num_pixels
    return num_pixels >= _MIN_PIXELS and bits < MIN_ENTROPY_BITS


def polarity(image_HW: NDArray[np.uint8]) -> float:
    """Measure how much brighter the mediastinum is than the lungs, and the picture than its upper
    corners.

    Bone and soft tissue are white in MONOCHROME2, air black.

    Returns:
        From -1.5 to 1.5, negative if black and white seem exchanged.
    """
    height, width = image_HW.shape
    corner_rows, corner_columns = max(1, height // 8), max(1, width // 8)
    middle_hW = image_HW[height // 4 : 3 * height // 4]
    mediastinum = _mean(middle_hW, 0.45, 0.55)
    lungs = (_mean(middle_hW, 0.20, 0.38) + _mean(middle_hW, 0.62, 0.80)) / 2
    top_hW = image_HW[:corner_rows]
    corners = (top_hW[:, :corner_columns].mean() + top_hW[:, -corner_columns:].mean()) / 2
    return float(mediastinum - lungs - 0.5 * (corners - image_HW.mean())) / 255


def likeness(image: Image.Image) -> float:
    """Return the correlation of an image's thumbnail with the phantom's: -1 to 1, 0 for a blank
    image.
    """
    thumbnail_T = _thumbnail(image)
    spread = math.sqrt(thumbnail_T @ thumbnail_T)
    return float(thumbnail_T @ _phantom_thumbnail()) / max(spread, 1e-9)


@cache
def _phantom_thumbnail() -> NDArray[np.float64]:
    """Average the thumbnails of a few phantoms: `chest_T`, of length 1."""
    chest_T = np.zeros(_THUMBNAIL_SIDE**2)
    for seed in range(_PHANTOMS):
        thumbnail_T = _thumbnail(Image.fromarray(draw_phantom(256, 256, seed=seed)))
        chest_T += thumbnail_T / np.linalg.norm(thumbnail_T)
    return np.asarray(chest_T / np.linalg.norm(chest_T), dtype=np.float64)


def _thumbnail(image: Image.Image) -> NDArray[np.float64]:
    """Average an image to a few pixels: `thumbnail_T`, about its mean."""
    small = image.resize((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), Image.Resampling.BOX)
    thumbnail_T = np.frombuffer(small.tobytes(), np.uint8).astype(np.float64)
    return np.asarray(thumbnail_T - thumbnail_T.mean(), dtype=np.float64)


def _mean(image_HW: NDArray[np.uint8], left: float, right: float) -> float:
    """Mean grey of an upright strip between two shares of the width."""
    width = image_HW.shape[1]
    return float(
        image_HW[:, int(left * width) : max(int(right * width), int(left * width) + 1)].mean()
    )
