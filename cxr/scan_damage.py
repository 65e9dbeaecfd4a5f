"""Does an image look torn, as one does behind a damaged place of a JPEG scan?

JPEG codes the brightness of a block as its difference from the one before. Behind a damaged place
all blocks are brighter or darker by the same amount, to the end of the image. The decoder notices
nothing if the damaged bytes happen to hold as many blocks as the sound ones did.

Shape suffixes: H rows, W columns, B boundaries between rows of blocks, C sampled columns, R rows
beside a boundary.
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
    columns_HC = image_HW[:, ::COLUMN_STEP]
    count = (image_HW.shape[0] - 2) // block_rows - 1
    # The mean of the columns' changes is the change of their mean, which takes one pass.
    sums_H = _row_sums(image_HW)
    excess_B = _excess(
        *(sums_H[block_rows + offset :: block_rows][:count] for offset in (-2, -1, 0, 1))
    )
    # A tear within a row of blocks shows above it on its right, and below it on its left.
    means_B = (excess_B[:-1] + excess_B[1:]) / (2 * columns_HC.shape[1])
    candidates = np.flatnonzero(np.abs(means_B) > MIN_STEP * top)
    return any(_is_tear(columns_HC, block_rows, int(index), top) for index in candidates)


def _row_sums(image_HW: NDArray[Any]) -> NDArray[np.int64]:
    """Return the sum of the sampled columns of each row."""
    width = image_HW.shape[1]
    if image_HW.dtype == np.uint8 and width % COLUMN_STEP == 0 and image_HW.flags.c_contiguous:
        # Of four bytes in a word the lowest one is the sampled column.
        sampled_HC = image_HW.view("<u4") & np.uint32(0xFF)
        return np.asarray(sampled_HC.sum(axis=1, dtype=np.uint32), np.int64)
    return np.asarray(image_HW[:, ::COLUMN_STEP].sum(axis=1, dtype=np.int64))


def _excess(
    above2: NDArray[Any], above: NDArray[Any], below: NDArray[Any], below2: NDArray[Any]
) -> NDArray[Any]:
    """Return thrice the change at a boundary beyond what the rows on both sides go on changing."""
    return np.asarray(3 * (below - above) - (below2 - above2))


def _is_tear(columns_HC: NDArray[Any], block_rows: int, index: int, top: int) -> bool:
    """Tell whether the columns change alike at a boundary between rows of blocks, or the next."""
    first = (index + 1) * block_rows
    second = first + block_rows
    upper_RC = columns_HC[first - 2 : first + 2].astype(np.int64)
    lower_RC = columns_HC[second - 2 : second + 2].astype(np.int64)
    change_C = (_excess(*upper_RC) + _excess(*lower_RC)) / 2
    step = float(np.median(change_C))
    spread = float(np.median(np.abs(change_C - step)))
    texture = min(float(upper_RC[1].std()), float(lower_RC[2].std()))
    return (
        abs(step) >= MIN_STEP * top
        and spread <= MAX_SPREAD * abs(step)
        and texture >= MIN_TEXTURE * top
    )
