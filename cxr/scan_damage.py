"""Does an image look torn, as one does behind a damaged place of a JPEG scan?

JPEG codes the brightness of a block as its difference from the one before. Behind a damaged place
all blocks are brighter or darker by the same amount, to the end of the image. The decoder notices
nothing if the damaged bytes happen to hold as many blocks as the sound ones did.

Shape suffixes: H rows, W columns, B boundaries between rows of blocks, C sampled columns.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

COLUMN_STEP = 4
"""Every fourth column is looked at."""

MIN_STEP = 5.0 / 255
"""Smallest change of brightness that counts, as a share of the range."""

MAX_SPREAD = 0.3
"""Largest median deviation of the columns' changes, as a share of the change."""

MIN_TEXTURE = 8.0 / 255
"""Smallest spread along the rows above and below: a plain border is no tear."""


def looks_torn(image_HW: NDArray[Any], block_rows: int, top: int = 255) -> bool:
    """Tell whether all columns change by the same amount where one row of blocks meets the next.

    Args:
        image_HW: decoded image.
        block_rows: rows of a coded block, after averaging; under 2 nothing can be told.
        top: largest value that the image may hold.
    """
    if block_rows < 2 or image_HW.shape[0] < 4 * block_rows:
        return False
    count = (image_HW.shape[0] - 2) // block_rows
    columns = image_HW[:, ::COLUMN_STEP]
    above2_BC, above_BC, below_BC, below2_BC = (
        columns[block_rows + offset :: block_rows][: count - 1].astype(_wide(top))
        for offset in (-2, -1, 0, 1)
    )
    # The change at the boundary beyond what the rows on both sides go on changing.
    excess_BC = 3 * (below_BC - above_BC) - (below2_BC - above2_BC)
    # A tear within a row of blocks shows above it on its right, and below it on its left.
    change_BC = excess_BC[:-1] + excess_BC[1:]
    means_B = change_BC.sum(axis=1, dtype=np.int64) / (2 * change_BC.shape[1])
    candidates = np.flatnonzero(np.abs(means_B) > MIN_STEP * top)
    return any(
        _is_tear(change_BC[index] / 2, above_BC[index], below_BC[index + 1], top)
        for index in candidates
    )


def _is_tear(
    change_C: NDArray[np.float64], above_C: NDArray[Any], below_C: NDArray[Any], top: int
) -> bool:
    step = float(np.median(change_C))
    spread = float(np.median(np.abs(change_C - step)))
    texture = min(float(above_C.std()), float(below_C.std()))
    return (
        abs(step) >= MIN_STEP * top
        and spread <= MAX_SPREAD * abs(step)
        and texture >= MIN_TEXTURE * top
    )


def _wide(top: int) -> type[np.signedinteger[Any]]:
    """Return a type that holds eight times the range."""
    return np.int16 if top < 2**12 else np.int32
