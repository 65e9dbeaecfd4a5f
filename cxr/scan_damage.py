"""Signs of a damaged JPEG scan that its decoder does not notice.

JPEG codes the brightness of a block as its difference from the one before. Behind a damaged place
all blocks are brighter or darker by the same amount, to the end of the image. The decoder notices
nothing if the damaged bytes happen to hold as many blocks as the sound ones did. Such an image
looks torn. A lost piece of a file is often read as zeros, which few encoders write.

Shape suffixes: H rows, W columns, B boundaries between rows of blocks, C sampled columns, R rows
beside a boundary.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr.codestream import JpegStructure

MIN_ZERO_BYTES = 16
"""Zeros in a row that count as a lost piece."""

_ZEROS = bytes(MIN_ZERO_BYTES)

COLUMN_STEP = 4
"""Every fourth column is looked at."""

MIN_STEP = 5.0 / 255
"""Smallest change of brightness that counts, as a share of the range."""

MAX_SPREAD = 0.3
"""Largest median deviation of the columns' changes, as a share of the change."""

MIN_TEXTURE = 8.0 / 255
"""Smallest spread along the rows above and below: a plain border is no tear."""


def has_lost_piece(outline: JpegStructure) -> bool:
    """Tell whether a scan holds zeros that are no image.

    Zeros are an image if they are the code of an empty block: a black border, written with tables
    made for that image. Refining scans may consist of zeros too, so progressive ones are not
    looked at, nor are those that code one colour at a time.
    """
    frame = outline.frame
    if outline.source.find(_ZEROS, outline.scan, outline.place.stop) < 0:
        return False
    if frame.is_progressive or frame.is_lossless or frame.is_arithmetic or len(outline.scans) != 1:
        return False
    coded = outline.coded
    start = 2 + int.from_bytes(coded[2:4], "big")
    used = {0x10 | number & 15 for number in coded[6 : start - 3 : 2]}
    firsts = dict(outline.shortest_codes())
    # Zeros between the last block and the end marker are padding.
    is_within = coded[:-2].rstrip(b"\0").find(_ZEROS, start) >= 0
    return is_within and any(firsts.get(table) for table in used)


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
    sums_H = columns_HC.sum(axis=1, dtype=np.int64)
    excess_B = _excess(
        *(sums_H[block_rows + offset :: block_rows][:count] for offset in (-2, -1, 0, 1))
    )
    # A tear within a row of blocks shows above it on its right, and below it on its left.
    means_B = (excess_B[:-1] + excess_B[1:]) / (2 * columns_HC.shape[1])
    candidates = np.flatnonzero(np.abs(means_B) > MIN_STEP * top)
    return any(_is_tear(columns_HC, block_rows, int(index), top) for index in candidates)


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
