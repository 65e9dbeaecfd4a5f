"""Are Rows and Columns exchanged in the header, so that the image comes out sheared?

A pixel resembles the one below it. That one stands as many values further on as a row is long, so
stored values tell which of the two numbers is the length of a row.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLES = 16
MAX_RATIO = 0.9
"""Difference of neighbours at the other row length, as a share of that at the stated one.

Of 360 radiographs of three collections, at ten sizes of 300 x 400 to 2500 x 2048, none had less
than 1.27 as stored, and none more than 0.78 with the sides exchanged.
"""


def are_sides_exchanged(stored_HW: NDArray[Any]) -> bool:
    """Tell whether neighbours resemble each other more if a row is as long as the image is high."""
    return neighbour_ratio(stored_HW) < MAX_RATIO


def neighbour_ratio(stored_HW: NDArray[Any]) -> float:
    """Return the mean difference of neighbours at the other row length by that at the stated."""
    rows, columns = stored_HW.shape
    if rows == columns:
        return 1.0
    flat = stored_HW.reshape(-1)
    last = flat.size - 2 * max(rows, columns)
    starts = np.linspace(last // 8, last - last // 8, SAMPLES).astype(np.intp)
    stated = sum(_difference(flat, start, columns, columns) for start in starts)
    other = sum(_difference(flat, start, rows, columns) for start in starts)
    return other / max(stated, 1.0)


def _difference(flat: NDArray[Any], start: int, distance: int, count: int) -> float:
    first = flat[start : start + count].astype(np.int32)
    second = flat[start + distance : start + distance + count].astype(np.int32)
    return float(np.abs(first - second).sum())
