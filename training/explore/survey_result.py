"""What a survey of a data folder found, before any figure is computed.

Shape suffixes: N images.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.class_folders import PARTS
from training.data.index import DataIndex, IndexRow
from training.explore.duplicates import NearPair
from training.explore.lesions import Lesions
from training.explore.read_files import Scan

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything that was found; `scans` are in the order of the index."""

    name: str
    index: DataIndex
    """With age, sex and view as the files state them."""
    scans: tuple[Scan, ...]
    table_rows: int | None
    """Rows of the mask table; None for class folders."""
    lesions: Lesions | None
    near: tuple[NearPair, ...]
    """Nearly the same, by position in the index, most alike first."""
    near_total: int
    stubs: int
    """Files that macOS leaves beside others."""

    @property
    def readable_N(self) -> NDArray[np.int64]:
        """Positions of the images that could be read."""
        return np.array([i for i, scan in enumerate(self.scans) if scan.readable], dtype=np.int64)

    def readable(self) -> Iterable[tuple[IndexRow, Scan]]:
        """Return the images that could be read, with their scans."""
        return (
            (row, scan)
            for row, scan in zip(self.index.rows, self.scans, strict=True)
            if scan.readable
        )


def part_of(row: IndexRow) -> str:
    """Return the part of the data set (`train`, `val` or `test`) that an image lies in; "" if there
    are no parts.
    """
    first = row.path.split("/", 1)[0]
    return first if first in PARTS else ""


def plain_numbers(survey: Survey) -> dict[str, tuple[NDArray[np.int_], Floats]]:
    """Return the labels and values of each plain number (age, size, mean grey ...), over the images
    that have it.
    """
    read: dict[str, Callable[[IndexRow, Scan], float | None]] = {
        "age": lambda row, _: row.age_years,
        "width over height": lambda _, scan: scan.columns / scan.rows,
        "pixels": lambda _, scan: float(scan.rows * scan.columns),
        "file size": lambda _, scan: float(scan.size_bytes),
        "mean grey": lambda _, scan: (
            float(np.mean(scan.thumb_HW)) if scan.thumb_HW is not None else None
        ),
        "contrast": lambda _, scan: (
            float(np.std(scan.thumb_HW)) if scan.thumb_HW is not None else None
        ),
    }
    numbers = {}
    for name, value_of in read.items():
        pairs = [
            (row.label, value)
            for row, scan in survey.readable()
            if (value := value_of(row, scan)) is not None
        ]
        numbers[name] = (
            np.array([label for label, _ in pairs], np.int_),
            np.array([value for _, value in pairs], np.float64),
        )
    return numbers
