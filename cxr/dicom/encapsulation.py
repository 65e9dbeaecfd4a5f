"""The compressed frame in encapsulated pixel data (PS3.5 A.4).

A single-frame image is all its fragments together, whatever the offset table lists.
"""

import struct

from cxr.codestream import JPEG_START
from cxr.errors import CorruptImage, NotARadiograph, TooLarge
from cxr.jpeg_2000 import JP2_START, JPEG_2000_START

MAX_FRAGMENTS = 50_000
"""Fragments of one frame; encoders write one, or one for each block of some kilobytes."""

_ITEM = 0xE000FFFE
_STARTS = (JPEG_START, JPEG_2000_START, JP2_START)


def single_frame(pixel_data: bytes) -> bytes:
    """Return the one frame of encapsulated pixel data.

    The items may end with a delimiter, with padding, with further elements, or with the data. A
    frame without any items, and one without an offset table, are read too. The codec tells if a
    part of the frame is missing.

    Raises:
        CorruptImage: a fragment is cut short, or there is none.
        NotARadiograph: there are several frames, whatever the header says.
        TooLarge: more fragments than are read.
    """
    if pixel_data.startswith(_STARTS):
        return pixel_data
    return b"".join(pixel_data[fragment] for fragment in _fragments(pixel_data))


def only_fragment(pixel_data: bytes) -> slice | None:
    """Return where the one frame lies if it is one piece, as most are; None if it is not.

    Raises:
        CorruptImage: a fragment is cut short, or there is none.
        NotARadiograph: there are several frames, whatever the header says.
        TooLarge: more fragments than are read.
    """
    if pixel_data.startswith(_STARTS):
        return slice(0, len(pixel_data))
    fragments = _fragments(pixel_data)
    return fragments[0] if len(fragments) == 1 else None


def _fragments(pixel_data: bytes) -> list[slice]:
    """Return where the fragments lie, without an offset table."""
    items = _items(pixel_data)
    if not items:
        raise CorruptImage("The pixel data has no frame.")
    has_table = len(items) > 1 and not pixel_data.startswith(_STARTS, items[0].start, items[0].stop)
    fragments = items[1:] if has_table else items
    starts = (pixel_data.startswith(_STARTS, part.start, part.stop) for part in fragments)
    if sum(starts) > 1:
        raise NotARadiograph("The file holds several frames; one radiograph is expected.")
    return fragments


def _items(pixel_data: bytes) -> list[slice]:
    items: list[slice] = []
    start = 0
    while start + 8 <= len(pixel_data):
        tag, length = struct.unpack_from("<2L", pixel_data, start)
        start += 8
        if tag != _ITEM:  # the delimiter, padding, or what follows if there is no delimiter
            break
        if start + length > len(pixel_data):
            raise CorruptImage("A fragment of the pixel data is cut short.")
        if len(items) == MAX_FRAGMENTS:
            raise TooLarge("The pixel data has more fragments than are read.")
        items.append(slice(start, start + length))
        start += length
    return items
