"""Files whose end is not as the standard has it: padding or junk, or pixels without a delimiter."""

import struct

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.valuerep import VR

from cxr.bounded_reads import BoundedReads
from cxr.errors import CorruptImage, TooLarge

_PIXEL_DATA = 0x7FE00010
_FIRST_GROUP = 0x0008
_LAST_GROUP = 0xFFFC
"""Groups of a data set: Data Set Trailing Padding (FFFC) is the last one."""

_VALUE_REPRESENTATIONS = frozenset(str(vr) for vr in VR if len(vr) == 2)


class BehindPixels:
    """Tell pydicom to stop at what follows the pixels and is no element: padding or junk."""

    def __init__(self) -> None:
        self._is_behind = False

    def __call__(self, tag: BaseTag, vr: str | None, _length: int) -> bool:
        """Return whether to stop at an element."""
        if not self._is_behind:
            self._is_behind = tag == _PIXEL_DATA
            return False
        return not _FIRST_GROUP <= tag.group <= _LAST_GROUP or (
            vr is not None and vr not in _VALUE_REPRESENTATIONS
        )


def read_open_ended(data: bytes) -> Dataset:
    """Read a file whose encapsulated pixels end without a delimiter, with padding or the file.

    Raises:
        CorruptImage: it is no such file.
        TooLarge: it has more elements than are read.
    """
    stream = BoundedReads(data)
    try:
        dataset = dcmread(stream, stop_before_pixels=True)
        start = stream.tell()
        element = struct.unpack_from("<HH2sHL", data, start)
    except (TooLarge, MemoryError):
        raise
    except Exception as exc:
        raise CorruptImage("The DICOM data set can't be read to its end.") from exc
    if element[:2] != (0x7FE0, 0x0010) or element[2] not in (b"OB", b"OW"):
        raise CorruptImage("The DICOM data set can't be read to its end.")
    if element[4] != 0xFFFFFFFF:
        raise CorruptImage("The DICOM data set can't be read to its end.")
    dataset.PixelData = data[start + 12 :]
    return dataset
