"""Which bits of a sample are the stored value: those above are overlays, a sign, or cut off values.

Shape suffixes: H rows, W columns.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from cxr.dicom.codecs import Frame
from cxr.dicom.layout import PixelLayout
from cxr.errors import CorruptImage

Patterns = NDArray[np.uint16] | NDArray[np.uint8]

_OVERLAY_GROUPS = range(0x6000, 0x6100)


def stored_patterns(
    dataset: Dataset, frame: Frame, layout: PixelLayout
) -> tuple[Patterns, int, bool]:
    """Return stored values as unsigned bit patterns, of how many bits they are, and whether the
    header cuts off higher ones.

    Bits above and below the stored ones are overlays or junk (PS3.5 section 8.1.1).  A
    compressed stream has no room for junk: if it is deeper than the header says, it is right.
    """
    stored_HW = frame.stored
    bits = layout.bits_stored
    if stored_HW.ndim != 2:
        raise CorruptImage("The pixel data has other samples than the header states.")
    unsigned_HW = (
        stored_HW.view(f"u{stored_HW.itemsize}") if stored_HW.dtype.kind == "i" else stored_HW
    )
    depth = 8 * unsigned_HW.itemsize
    if bits >= depth:
        return unsigned_HW, bits, False
    if frame.is_compressed and not layout.is_signed:
        needed = int(unsigned_HW.max()).bit_length()
        return unsigned_HW, max(bits, needed), False
    unsigned_HW = from_lowest_bit(unsigned_HW, layout)
    if int(unsigned_HW.max()) < 2**bits:  # nothing above the stored bits, as in most files
        return unsigned_HW, bits, False
    is_cut = _are_values_cut(dataset, unsigned_HW, bits, is_signed=layout.is_signed)
    return unsigned_HW & unsigned_HW.dtype.type(2**bits - 1), bits, is_cut


def from_lowest_bit(stored: NDArray[Any], layout: PixelLayout) -> NDArray[Any]:
    """Return stored values without the bits below those that HighBit and BitsStored name."""
    shift = layout.high_bit + 1 - layout.bits_stored
    if not 0 < shift <= 8 * stored.itemsize - layout.bits_stored:
        return stored
    return np.asarray(np.right_shift(stored, stored.dtype.type(shift)))


def _are_values_cut(
    dataset: Dataset, unsigned_HW: NDArray[Any], bits: int, *, is_signed: bool
) -> bool:
    """Tell whether bits above the stored ones hold what no header explains.

    Overlays may lie there (PS3.5 8.1.1, retired), which the header then describes, and the sign of
    a negative value. If BitsStored or HighBit are too low, the highest bits of the image lie there,
    and what is left of it begins anew at each power of two.

    Args:
        dataset: the header.
        unsigned_HW: stored values as unsigned bit patterns, the lowest bit the lowest stored one.
        bits: how many of them the header calls stored.
        is_signed: whether the header calls them signed.
    """
    if any(tag.group in _OVERLAY_GROUPS for tag in dataset.keys()):  # noqa: SIM118 - gives tags
        return False
    above_HW = unsigned_HW >> bits
    if not is_signed:
        return bool(above_HW.any())
    sign_HW = (unsigned_HW >> (bits - 1)) & 1
    extended_HW = np.where(sign_HW, above_HW.max(), 0)
    return bool(((above_HW != 0) & (above_HW != extended_HW)).any())
