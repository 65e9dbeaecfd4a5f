"""The display shutter: what it covers is no image (PS3.3 C.7.6.11).

Shape suffixes: H rows, W columns.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset

from cxr.dicom.header import texts, whole_number
from cxr.dicom.values import numbers
from cxr.errors import CorruptImage

_MAX_P_VALUE = 65535
MIN_OPEN_SHARE = 0.01
"""A shutter that leaves less of the image open is a mistake."""

MAX_VERTICES = 4096
MAX_COORDINATE = 100_000
"""Corners beyond this are no places in a radiograph."""


@dataclass(frozen=True, slots=True)
class Shutter:
    """`covered_HW` is what all shapes together cover, and `grey` what is shown there."""

    covered_HW: NDArray[np.bool_] | None
    grey: int
    is_repaired: bool

    def close(self, pixels_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the grey levels with the shutter closed over them."""
        if self.covered_HW is None:
            return pixels_HW
        return np.where(self.covered_HW, np.uint8(self.grey), pixels_HW)


def read_shutter(dataset: Dataset, rows: int, columns: int) -> Shutter:
    """Read the shutter. A shape that can't be read, or leaves nothing, is left aside and told."""
    covered_HW: NDArray[np.bool_] | None = None
    is_repaired = False
    for shape in {shape.upper() for shape in texts(dataset, "ShutterShape")} - {""}:
        open_HW = _open_area(dataset, shape, rows, columns)
        if open_HW is None:
            is_repaired = True
            continue
        covered_HW = ~open_HW if covered_HW is None else covered_HW | ~open_HW
    if covered_HW is not None and 1 - covered_HW.mean() < MIN_OPEN_SHARE:
        return Shutter(None, 0, is_repaired=True)
    if covered_HW is None or not covered_HW.any():
        return Shutter(None, 0, is_repaired)
    grey, grey_fault = _presentation_grey(dataset)
    return Shutter(covered_HW, grey, is_repaired or grey_fault)


def _open_area(dataset: Dataset, shape: str, rows: int, columns: int) -> NDArray[np.bool_] | None:
    """Return the area that a shape leaves open; None if its attributes are missing or senseless."""
    drawing = _SHAPES.get(shape)
    try:
        return drawing(dataset, rows, columns) if drawing else None
    except (ValueError, TypeError, OverflowError):
        return None


def _rectangle(dataset: Dataset, rows: int, columns: int) -> NDArray[np.bool_]:
    """Draw an open rectangle; the edges belong to it, and the first row and column are number 1."""
    left, right, top, bottom = (
        numbers(dataset, f"Shutter{edge}Edge", 1)[0]
        for edge in ("LeftVertical", "RightVertical", "UpperHorizontal", "LowerHorizontal")
    )
    open_HW = np.zeros((rows, columns), np.bool_)
    open_HW[max(top - 1, 0) : max(bottom, 0), max(left - 1, 0) : max(right, 0)] = True
    return open_HW


def _circle(dataset: Dataset, rows: int, columns: int) -> NDArray[np.bool_]:
    row, column = numbers(dataset, "CenterOfCircularShutter", 2)
    (radius,) = numbers(dataset, "RadiusOfCircularShutter", 1)
    squares_H = float(radius) ** 2 - (np.arange(1.0, rows + 1) - row) ** 2
    half_H = np.sqrt(np.maximum(squares_H, 0))
    distance_W = np.abs(np.arange(1.0, columns + 1) - column)
    open_HW: NDArray[np.bool_] = (distance_W <= half_H[:, None]) & (squares_H >= 0)[:, None]
    return open_HW


def _polygon(dataset: Dataset, rows: int, columns: int) -> NDArray[np.bool_]:
    corners = numbers(dataset, "VerticesOfThePolygonalShutter", None)
    if not 6 <= len(corners) <= 2 * MAX_VERTICES or max(map(abs, corners)) > MAX_COORDINATE:
        raise ValueError("vertices")
    canvas = Image.new("1", (columns, rows))
    points = [
        (column - 1, row - 1) for row, column in zip(corners[::2], corners[1::2], strict=True)
    ]
    ImageDraw.Draw(canvas).polygon(points, fill=1)
    return np.array(canvas, np.bool_)


_SHAPES: dict[str, Callable[[Dataset, int, int], NDArray[np.bool_]]] = {
    "RECTANGULAR": _rectangle,
    "CIRCULAR": _circle,
    "POLYGONAL": _polygon,
}


def _presentation_grey(dataset: Dataset) -> tuple[int, bool]:
    """Return the grey level over the covered area, black if none is stated, and whether it is
    unusable.

    P-values run from 0, black, to 65535 whatever the photometric interpretation.
    """
    try:
        value = whole_number(dataset, "ShutterPresentationValue", default=0)
    except CorruptImage:
        return 0, True
    return round(min(max(value, 0), _MAX_P_VALUE) / _MAX_P_VALUE * 255), False
