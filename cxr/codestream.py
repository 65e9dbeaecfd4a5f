"""The markers of a compressed image (JPEG and others): its size, its scans, and its end.

Files lie.  A header may state a small image over a huge codestream, hide a second
picture in a comment, or bring thousands of scans.  This module walks the
stream's own markers, so that no decoder gets more than was checked.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from cxr.errors import CorruptImage, DecodeLimit

JPEG_START = b"\xff\xd8"

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
_SCAN_OR_END = re.compile(rb"\xff[\xd9\xda]")
"""Start of a scan, or end of the image."""

_HUFFMAN_TABLES = 0xC4
_RESTART_INTERVAL = 0xDD
_JFIF = 0xE0
_EXIF = 0xE1
_ADOBE = 0xEE
_NAMES = {_JFIF: b"JFIF\0", _EXIF: b"Exif\0", _ADOBE: b"Adobe"}
"""First bytes of the application segments that are read; others share their numbers."""

_UNSEEN = frozenset({*range(0xE0, 0xF0), 0xFE})
"""Application segments and comments, which make no pixel. What they say of colours is read here."""

ColorModel = Literal["grey", "ycc", "rgb", "cmyk", "unstated"]


@dataclass(frozen=True, slots=True)
class JpegFrame:
    """A start-of-frame segment (ITU-T T.81 B.2.2)."""

    marker: int
    bits: int
    rows: int
    columns: int
    components: tuple[tuple[int, int, int], ...]
    """Identifier, horizontal and vertical sampling of each component."""

    @property
    def is_progressive(self) -> bool:
        """Whether several scans refine the same samples."""
        return self.marker in (0xC2, 0xC6, 0xCA, 0xCE)

    @property
    def is_lossless(self) -> bool:
        """Whether samples are predicted, not transformed."""
        return self.marker in (0xC3, 0xC7, 0xCB, 0xCF)

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
    """What stands before a JPEG's first scan, and what follows.

    `head` has the segments that make pixels: no texts, profiles, thumbnails or further pictures.
    `source` has the stream at `place`, from its start to its end marker; the first scan is at
    `scan`. `exif` is the first
    EXIF segment's content. `restart_units` is the number of coded units between restart markers, 0
    for no restarts. `is_inverted` is set for CMYK as Adobe writes it, with 0 for full ink.
    """

    frame: JpegFrame
    color: ColorModel
    is_inverted: bool
    restart_units: int
    head: bytes
    source: bytes
    place: slice
    scan: int
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
    def samples(self) -> int:
        """Samples of a pixel."""
        return len(self.frame.components)

    @property
    def num_bytes(self) -> int:
        """Length of the stream without the segments that make no pixel."""
        return len(self.head) + int(self.place.stop) - self.scan

    @property
    def coded(self) -> bytes:
        """The stream from its first scan to its end marker."""
        return self.source[self.scan : self.place.stop]

    def stream(self, segment: bytes = b"") -> bytes | memoryview:
        """Return the stream without the segments that make no pixel, and with another one.

        Nothing is copied if nothing is left out or put in.
        """
        source = memoryview(self.source)
        if not segment and len(JPEG_START) + len(self.head) == self.scan - self.place.start:
            return source[self.place]
        return b"".join((JPEG_START, segment, self.head, source[self.scan : self.place.stop]))

    @property
    def num_scanned(self) -> float:
        """Samples over which a decoder walks, in all scans together."""
        return self.rows * self.columns * sum(map(self.frame.samples_a_pixel, self.scans))

    @property
    def block_rows(self) -> int:
        """Rows of a coded unit of DCT blocks."""
        if self.samples == 1:
            return 8
        return 8 * max((high for _, _, high in self.frame.components), default=1)

    def shortest_codes(self) -> Iterator[tuple[int, int]]:
        """Yield each Huffman table before the first scan: its class and number as one byte (T.81
        B.2.4.2), and the symbol of its shortest code, which consists of zeros.
        """
        head = JPEG_START + self.head
        for marker, start, end in _segments(head, 0, len(head)):
            tables = head[start:end]
            place = 4
            while marker == _HUFFMAN_TABLES and place + 18 <= len(tables):
                yield tables[place], tables[place + 17]
                place += 17 + sum(tables[place + 1 : place + 17])

    @property
    def is_subsampled(self) -> bool:
        """Whether the components differ in resolution, as only luma and chroma do."""
        return len({(wide, high) for _, wide, high in self.frame.components}) > 1


def read_jpeg_outline(data: bytes, place: slice | None = None) -> JpegStructure:
    """Walk a JPEG or JPEG-LS stream up to its first scan, and find its end.

    Args:
        data: the stream, or what holds it.
        place: where the stream lies in the data; None if it is all.

    Raises:
        CorruptImage: no frame header, a broken segment, or no end.
        DecodeLimit: more scans than any image needs.
    """
    frame: JpegFrame | None = None
    kept: list[bytes] = []
    found: dict[int, bytes] = {}
    scan = 0
    place = place or slice(0, len(data))
    for marker, start, end in _segments(data, place.start, place.stop):
        if marker == _START_OF_SCAN:
            scan = start
            break
        segment = data[start:end]
        if marker in _FRAME_HEADERS and frame is None:
            frame = _read_frame(marker, segment)
        if marker not in _UNSEEN:
            kept.append(segment)
        if marker not in found or segment[4:9] == _NAMES.get(marker):
            found[marker] = segment
    if frame is None or not scan:
        raise CorruptImage("The compressed image has no frame header.")
    scans, end = _find_scans(data, scan, place.stop)
    color = _color_model(found, bytes(number for number, _, _ in frame.components))
    adobe = found.get(_ADOBE, b"") if color == "cmyk" else b""
    interval = found.get(_RESTART_INTERVAL, b"").ljust(6, b"\0")
    return JpegStructure(
        frame=frame,
        color=color,
        is_inverted=adobe[4:9] == _NAMES[_ADOBE],
        restart_units=struct.unpack_from(">H", interval, 4)[0],
        head=adobe + b"".join(kept),
        source=data,
        place=slice(place.start, end),
        scan=scan,
        exif=found.get(_EXIF, b"")[4:],
        scans=tuple(_scan_components(data, start, end) for start in scans),
    )


def _find_scans(data: bytes, first: int, stop: int) -> tuple[list[int], int]:
    """Return where the scans start, and the end, in one pass, as most of a file lies here."""
    scans: list[int] = []
    end = -1
    # Entropy-coded bytes never look like a marker, so the first end is the end itself.
    for marker in _SCAN_OR_END.finditer(data, first, stop):
        if marker[0] != _SCAN:
            end = marker.end()
            break
        scans.append(marker.start())
        if len(scans) > MAX_SCANS:
            break
    # Scans behind the end count too: they belong to no image.
    if len(scans) + (data.count(_SCAN, end, stop) if end >= 0 else 0) > MAX_SCANS:
        raise DecodeLimit(f"The compressed image has more than {MAX_SCANS} scans.")
    if end < 0:
        raise CorruptImage("The compressed image has no end.")
    return scans, end


def _color_model(found: dict[int, bytes], ids: bytes) -> ColorModel:
    """Tell which colours the components mean, by the rules of libjpeg.

    A JFIF segment means YCbCr. The transform of an Adobe segment comes next, then the letters R, G,
    B as component numbers.
    """
    if len(ids) == 1:
        return "grey"
    if len(ids) == 4:
        return "cmyk"
    if found.get(_JFIF, b"")[4:9] == _NAMES[_JFIF]:
        return "ycc"
    adobe = found.get(_ADOBE, b"")
    if adobe[4:9] == _NAMES[_ADOBE] and len(adobe) >= 16:
        return "ycc" if adobe[15] else "rgb"
    return "rgb" if ids == b"RGB" else "unstated"


def _segments(data: bytes, first: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment (ITU-T T.81 B.1.1), as long as they follow each
    other.
    """
    if not data.startswith(JPEG_START, first, stop):
        raise CorruptImage("The compressed image has no start.")
    place = first + len(JPEG_START)
    for _ in range(MAX_SEGMENTS):
        if place + 4 > stop or data[place] != 0xFF:
            return
        marker = data[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
        elif marker in _STANDALONE:
            place += 2
        else:
            end = place + 2 + struct.unpack_from(">H", data, place + 2)[0]
            yield marker, place, min(end, stop)
            place = end
    raise CorruptImage("The compressed image has too many segments.")


def _read_frame(marker: int, segment: bytes) -> JpegFrame:
    if len(segment) < 10 or len(segment) < 10 + 3 * segment[9]:
        raise CorruptImage("The compressed image's frame header is cut short.")
    rows, columns = struct.unpack_from(">HH", segment, 5)
    described = segment[10 : 10 + 3 * segment[9]]
    components = tuple(
        (described[at], described[at + 1] >> 4, described[at + 1] & 15)
        for at in range(0, len(described) - 2, 3)
    )
    return JpegFrame(marker, segment[4], rows, columns, components)


def _scan_components(data: bytes, start: int, end: int) -> bytes:
    """Return the components' identifiers of a scan (ITU-T T.81 B.2.3)."""
    count = data[start + 4] if start + 4 < end else 0
    return data[start + 5 : min(start + 5 + 2 * count, end) : 2]
