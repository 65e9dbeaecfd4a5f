"""What a JPEG 2000 codestream states before it is decoded: its size and its colour transform."""

import struct
from dataclasses import dataclass

from cxr.codestream import MAX_SEGMENTS
from cxr.errors import CorruptImage

JPEG_2000_START = b"\xff\x4f\xff\x51"
JP2_START = b"\0\0\0\x0cjP  "


@dataclass(frozen=True, slots=True)
class Jpeg2000Structure:
    """Size and colour transform of a JPEG 2000 codestream's main header."""

    rows: int
    columns: int
    undoes_ybr: bool


def read_jpeg_2000_outline(data: bytes) -> Jpeg2000Structure:
    """Read the SIZ and COD segments (ITU-T T.800 A.5.1 and A.6.1); raises `CorruptImage`."""
    start = _codestream_start(data)
    if not data.startswith(JPEG_2000_START, start) or len(data) < start + 42:
        raise CorruptImage("The compressed image has no frame header.")
    right, bottom, left, top = struct.unpack_from(">4L", data, start + 8)
    return Jpeg2000Structure(bottom - top, right - left, _has_color_transform(data, start))


def _codestream_start(data: bytes) -> int:
    """Find the codestream in the boxes of a JP2 file (ITU-T T.800 I.4), which DICOM forbids and
    some archives send.
    """
    if not data.startswith(JP2_START):
        return 0
    place = 0
    for _ in range(MAX_SEGMENTS):
        length, kind = struct.unpack(">L4s", data[place : place + 8].ljust(8, b"\0"))
        if kind == b"jp2c":
            return place + (16 if length == 1 else 8)
        if length < 8:
            break
        place += length
    raise CorruptImage("The compressed image has no codestream.")


def _has_color_transform(data: bytes, start: int) -> bool:
    place = start + 2
    for _ in range(MAX_SEGMENTS):
        marker, length = struct.unpack(">HH", data[place : place + 4].ljust(4, b"\0"))
        if marker == 0xFF52:
            return data[place + 8 : place + 9] == b"\1"
        if marker < 0xFF50 or length < 2:
            break
        place += 2 + length
    return False
