"""How a header says that its pixels are stored, completed if only one reading is left."""

from dataclasses import dataclass

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset

from cxr.dicom.header import is_stated, text, whole_number
from cxr.errors import CorruptImage


@dataclass(frozen=True, slots=True)
class PixelLayout:
    """The Image Pixel module (PS3.3 C.7.6.3). `is_repaired` tells that an attribute was missing."""

    rows: int
    columns: int
    samples: int
    photometric: str
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool
    is_repaired: bool

    @property
    def is_grey(self) -> bool:
        """Tell whether the pixels are grey levels."""
        return self.photometric in ("MONOCHROME1", "MONOCHROME2")

    @property
    def is_ybr(self) -> bool:
        """Tell whether the header says that the first sample is the brightness."""
        return self.photometric.startswith("YBR")


def read_layout(dataset: Dataset) -> PixelLayout:
    """Read the layout, and write what was missing into the data set.

    A missing number of samples follows from the photometric interpretation, a missing sign from the
    image classes of radiographs, which have none.

    Raises:
        CorruptImage: an attribute is missing that nothing else tells, or two contradict each other.
    """
    photometric = photometric_interpretation(dataset)
    if photometric not in (text(dataset, "PhotometricInterpretation"), "PALETTECOLOR"):
        _write(dataset, "PhotometricInterpretation", photometric)  # pydicom compares it exactly
    if not photometric.startswith(_READ):
        raise CorruptImage("The pixels mean neither greys nor RGB, YBR or palette colours.")
    allocated = whole_number(dataset, "BitsAllocated")
    is_single = photometric.startswith("MONOCHROME") or photometric == "PALETTECOLOR"
    is_repaired = not all(is_stated(dataset, keyword) for keyword in _COMPLETED)
    stored = _completed(dataset, "BitsStored", allocated)
    layout = PixelLayout(
        rows=whole_number(dataset, "Rows"),
        columns=whole_number(dataset, "Columns"),
        samples=_completed(dataset, "SamplesPerPixel", 1 if is_single else 3),
        photometric=photometric,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=_completed(dataset, "HighBit", stored - 1),
        is_signed=_completed(dataset, "PixelRepresentation", 0) == 1,
        is_repaired=is_repaired,
    )
    if layout.samples > 1:
        _completed(dataset, "PlanarConfiguration", 0)
    if not 1 <= stored <= allocated or (layout.is_grey and layout.samples != 1):
        raise CorruptImage("The header's description of the pixels contradicts itself.")
    return layout


def photometric_interpretation(dataset: Dataset) -> str:
    """Return the photometric interpretation in capitals without blanks, as stations misspell it.

    Raises:
        CorruptImage: it is missing.
    """
    stated = text(dataset, "PhotometricInterpretation").upper().replace(" ", "")
    if not stated:
        raise CorruptImage("PhotometricInterpretation is missing.")
    return stated


_READ = ("MONOCHROME", "PALETTECOLOR", "RGB", "YBR")
"""Retired ones such as HSV or CMYK have three or four samples too, of another meaning."""

_COMPLETED = ("SamplesPerPixel", "PixelRepresentation", "BitsStored")


def _completed(dataset: Dataset, keyword: str, default: int) -> int:
    """Return an attribute; if it is missing, write a default that pydicom's decoders find."""
    if not is_stated(dataset, keyword):
        _write(dataset, keyword, default)
    return whole_number(dataset, keyword)


def _write(dataset: Dataset, keyword: str, value: str | int) -> None:
    """Write an attribute with its own value representation, whatever the file gives it."""
    dataset.add_new(tag_for_keyword(keyword) or 0, dictionary_VR(keyword), value)
