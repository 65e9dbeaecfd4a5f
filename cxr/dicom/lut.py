"""Look-up tables of a DICOM header: modality LUT, VOI LUT, palette.

They are read here from their raw bytes, because archives send what the standard
forbids: a wrong number of bits, 8-bit entries in 16-bit tables, the wrong sign.

Shape suffixes: E entries of a table, V values that are looked up.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from cxr.dicom.header import element


@dataclass(frozen=True, slots=True)
class Lut:
    """A table whose first entry stands for the value `first`; values beyond its ends take its ends.

    `top` is the entry that means full brightness. `is_repaired` tells that the stated depth did not
    fit the entries.
    """

    first: int
    top: int
    entries_E: NDArray[np.uint16]
    is_repaired: bool = False

    def map(self, values_V: NDArray[Any]) -> NDArray[np.float64]:
        """Look values up; gives the entries as they are stored."""
        lowest = (
            self.first - 65536
            if self.first >= 32768 and self.first > values_V.max()
            else self.first
        )
        places_V = np.clip(np.rint(values_V) - lowest, 0, len(self.entries_E) - 1).astype(np.intp)
        return np.asarray(self.entries_E[places_V], np.float64)

    def share(self, values_V: NDArray[Any]) -> NDArray[np.float64]:
        """Look values up; gives shares of the table's range, 0 to 1."""
        return np.asarray(self.map(values_V) / self.top)


def read_lut(dataset: Dataset, prefix: str = "LUT") -> Lut:
    """Read `<prefix>Descriptor` and `<prefix>Data` (PS3.3 C.11.1.1.1).

    Stations often state 16 bits, the size of an entry, over entries of fewer. As in viewers, the
    highest entry then means full brightness.

    Raises:
        ValueError: the table is missing or broken.
    """
    count, first, bits = (int(one) for one in _words(dataset, f"{prefix}Descriptor", 3))
    entries_E = _entries(dataset, f"{prefix}Data", count or 65536)
    highest = int(entries_E.max())
    fits = 8 <= bits <= 16 and highest.bit_length() == bits
    return Lut(first, 2**bits - 1 if fits else max(highest, 1), entries_E, is_repaired=not fits)


def _entries(dataset: Dataset, keyword: str, count: int) -> NDArray[np.uint16]:
    size = len(_raw(dataset, keyword)[0])
    if size >= 2 * count:
        return _words(dataset, keyword, count)
    if size >= count:  # one byte an entry, as old stations write 8-bit tables
        return np.frombuffer(_raw(dataset, keyword)[0], np.uint8, count).astype(np.uint16)
    raise ValueError(keyword)


def _words(dataset: Dataset, keyword: str, count: int) -> NDArray[np.uint16]:
    """Return 16-bit numbers as unsigned ones, whatever the value representation says."""
    raw, order = _raw(dataset, keyword)
    return np.frombuffer(raw, f"{order}u2", count).astype(np.uint16)


def _raw(dataset: Dataset, keyword: str) -> tuple[bytes, str]:
    """Return an element's bytes and their order; raises `ValueError` if it is absent."""
    stored = element(dataset, keyword)
    value = getattr(stored, "value", None)
    if isinstance(value, bytes):
        return value, "<" if getattr(stored, "is_little_endian", True) else ">"
    raise ValueError(keyword)
