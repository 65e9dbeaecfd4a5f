"""What a compressed image states before it is decoded: its size, its scans, and its end.

Files lie.  A header may state a small image over a huge codestream, hide a second
picture in a comment, or bring thousands of scans.  This module walks the
stream's own markers, so that no decoder gets more than was checked.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from cxr.errors import CorruptImage, DecodeLimit

JPEG_START = b"\xff\xd8"
JPEG_2000_START = b"\xff\x4f\xff\x51"
JP2_START = b"\0\0\0\x0cjP  "

MAX_SEGMENTS = 1024
"""Segments before the first scan; files have tens."""

MAX_SCANS = 100
"""Scans of one JPEG.  Progressive ones have about ten; each costs a walk over the whole image,
whatever its bytes."""

_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
"""JPEG's start-of-frame markers (T.81 table B.1), and JPEG-LS's (T.87)."""

_STANDALONE = frozenset({0x00, 0x01, *range(0xD0, 0xD8)})
"""Markers without a length (T.81 B.1.1.3), and the stuffed byte that some writers leave between
segments."""

_START_OF_SCAN = 0xDA
_SCAN = b"\xff\xda"
_END_OF_IMAGE = b"\xff\xd9"
_EXIF = 0xE1
_UNSEEN = frozenset({*range(0xE1, 0xF0), 0xFE}) - {0xEE}
"""Application segments and comments that make no pixel; APP0 (JFIF) and APP14 (Adobe) say which
colours are meant."""


@dataclass(frozen=True, slots=True)
class JpegFrame:
    """A start-of-frame segment (ITU-T T.81 B.2.2)."""

    marker: int
    rows: int
    columns: int
    components: tuple[tuple[int, int, int], ...]
    """Identifier, horizontal and vertical sampling of each component."""

    @property
    def is_progressive(self) -> bool:
        """Whether several scans refine the same samples."""
        return self.marker in (0xC2, 0xC6, 0xCA, 0xCE)

    @property
    def is_arithmetic(self) -> bool:
        """Whether samples are arithmetic coded."""
        return 0xC9 <= self.marker <= 0xCF

    def samples_a_pixel(self, scan: bytes) -> float:
        """Return the samples for each pixel in a scan's components; at least one component's."""
        widest = max((wide for _, wide, _ in self.components), default=1)
        highest = max((high for _, _, high in self.components), default=1)
        shares = [
            wide * high / max(1, widest * highest)
            for number, wide, high in self.components
            if number in scan
        ]
        return sum(shares) or 1.0


@dataclass(frozen=True, slots=True)
class JpegStructure:
    """What stands before a JPEG's first scan.

    `bare` is the stream without the segments that make no pixel: texts, profiles,
    thumbnails, further pictures.  `exif` is the first APP1 segment's content.
    """

    frame: JpegFrame
    bare: bytes
    exif: bytes
    scans: tuple[bytes, ...]
    """The components of each scan, by their identifiers."""

    @property
    def rows(self) -> int:
        """Rows of the frame."""
        return self.frame.rows

    @property
    def columns(self) -> int:
        """Columns of the frame."""
        return self.frame.columns

    @property
    def num_scanned(self) -> float:
        """Samples over which a decoder walks, in all scans together."""
        return self.rows * self.columns * sum(map(self.frame.samples_a_pixel, self.scans))


def read_jpeg_outline(data: bytes) -> JpegStructure:
    """Walk a JPEG or JPEG-LS stream up to its first scan.

    Raises:
        CorruptImage: no frame header, a broken segment, or no end.
        DecodeLimit: more scans than any picture needs.
    """
    frame: JpegFrame | None = None
    exif = b""
    kept = [JPEG_START]
    scan = 0
    for marker, start, end in _segments(data):
        if marker == _START_OF_SCAN:
            scan = start
            break
        if marker in _FRAME_HEADERS and frame is None:
            frame = _read_frame(marker, data[start:end])
        if marker == _EXIF:
            exif = exif or data[start + 4 : end]
        if marker not in _UNSEEN:
            kept.append(data[start:end])
    if frame is None or not scan:
        raise CorruptImage("The compressed image has no frame header.")
    if data.count(_SCAN, scan) > MAX_SCANS:
        raise DecodeLimit(f"The compressed image has more than {MAX_SCANS} scans.")
    if (
        data.rfind(_END_OF_IMAGE) < scan
    ):  # entropy-coded bytes never look like a marker, so this is the end itself
        raise CorruptImage("The compressed image has no end.")
    bare = b"".join((*kept, data[scan:]))
    return JpegStructure(frame, bare, exif, tuple(_scans(data, scan)))


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment (ITU-T T.81 B.1.1), as long as they follow each
    other.
    """
    if not data.startswith(JPEG_START):
        raise CorruptImage("The compressed image has no start.")
    place = 2
    for _ in range(MAX_SEGMENTS):
        if data[place : place + 1] != b"\xff" or place + 4 > len(data):
            return
        marker = data[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
        elif marker in _STANDALONE:
            place += 2
        else:
            end = place + 2 + struct.unpack_from(">H", data, place + 2)[0]
            yield marker, place, end
            place = end
    raise CorruptImage("The compressed image has too many segments.")


def _read_frame(marker: int, segment: bytes) -> JpegFrame:
    if len(segment) < 9:
        raise CorruptImage("The compressed image's frame header is cut short.")
    rows, columns = struct.unpack_from(">HH", segment, 5)
    described = segment[10:]
    components = tuple(
        (described[at], described[at + 1] >> 4, described[at + 1] & 15)
        for at in range(0, len(described) - 2, 3)
    )
    return JpegFrame(marker, rows, columns, components)


def _scans(data: bytes, first: int) -> Iterator[bytes]:
    """Yield the components' identifiers of each scan (ITU-T T.81 B.2.3)."""
    place = first
    while place >= 0:
        count = data[place + 4] if place + 4 < len(data) else 0
        yield data[place + 5 : place + 5 + 2 * count : 2]
        place = data.find(_SCAN, place + 2)


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
