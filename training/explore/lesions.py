"""The lesions of a SIIM table: their area and location.

Shape suffixes: h and w rows and columns of a coarse grid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.siim import decode_runs

GRID = 64

SIZES = {
    "small (under 0.5 %)": (0.0, 0.005),
    "medium (0.5 to 2 %)": (0.005, 0.02),
    "large (2 % and more)": (0.02, 1.0),
}
"""Shares of the image that a lesion covers."""


@dataclass(frozen=True, slots=True)
class Lesions:
    """The lesions of all positive images that have a file."""

    share_by_image: dict[str, float]
    """Share of the image that the joined masks cover, by image id."""
    masks: tuple[int, ...]
    """How many masks each of these images has."""
    frequency_hw: NDArray[np.float64]
    """Share of the positive images in which each cell of the grid is covered."""


def measure_lesions(
    runs: Mapping[str, Sequence[str]], size_of: Mapping[str, tuple[int, int]]
) -> Lesions:
    """Measure the joined masks of each positive image. `size_of` has rows and columns of each
    image.
    """
    share: dict[str, float] = {}
    frequency_hw = np.zeros((GRID, GRID))
    positive = [image_id for image_id, texts in runs.items() if texts and image_id in size_of]
    for image_id in positive:
        mask_HW = decode_runs(runs[image_id], *size_of[image_id])
        share[image_id] = float(mask_HW.mean())
        frequency_hw += _coarse(mask_HW)
    return Lesions(
        share,
        tuple(len(runs[image_id]) for image_id in positive),
        frequency_hw / max(1, len(positive)),
    )


def _coarse(mask_HW: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Average a mask over a coarse grid."""
    rows, columns = (np.arange(GRID) * side // GRID for side in mask_HW.shape)
    sums = np.add.reduceat(
        np.add.reduceat(mask_HW.astype(np.float64), rows, axis=0), columns, axis=1
    )
    counts = np.outer(np.diff([*rows, mask_HW.shape[0]]), np.diff([*columns, mask_HW.shape[1]]))
    return np.asarray(sums / counts, dtype=np.float64)
