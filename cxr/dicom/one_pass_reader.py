"""Read a well-formed data set in one pass over its bytes, much faster than pydicom.

Most files are little endian, state the length of all that they hold, and end with their last
element. For these, `scan` makes what pydicom makes, in a tenth of the time: it copies nothing but
values. For any other file it gives None, and pydicom reads it.
"""

import struct
from dataclasses import dataclass
from functools import lru_cache

from pydicom.dataelem import DataElement, RawDataElement, empty_value_for_VR
from pydicom.tag import BaseTag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

MAX_ELEMENTS = 4096
"""Elements of a file that is scanned; radiographs have some hundred."""

MAX_FRAGMENTS = 1024
"""Fragments of pixel data that are scanned; a radiograph has one or two."""

Elements = dict[BaseTag, DataElement | RawDataElement]

_PIXEL_DATA = 0x7FE00010
_FIRST_TAG = 0x00080000
_LAST_TAG = 0xFFFCFFFF
"""Tags of a data set: Data Set Trailing Padding (FFFC) is the last one."""

_FIRST_META_TAG = 0x00020000
_LAST_META_TAG = 0x0002FFFF


def _empty(name: str) -> bytes | None:
    """Return what pydicom's reader has for a value of no bytes."""
    value = empty_value_for_VR(name, raw=True)
    return value if isinstance(value, bytes) else None


_KINDS = {
    str(vr).encode(): (str(vr), vr in EXPLICIT_VR_LENGTH_32, _empty(str(vr)))
    for vr in VR
    if len(vr) == 2
}
"""Of each value representation: its name, whether its length has four bytes, its empty value."""

_ENCAPSULATED = ("OB", "OW")
_UNDEFINED = 0xFFFFFFFF
_ITEM = 0xE000FFFE
_SEQUENCE_END = 0xE0DDFFFE
_HEAD = struct.Struct("<HH2sH")
_HEAD_BYTES = 8
_LENGTH = struct.Struct("<L")
_PAIR = struct.Struct("<LL")


@lru_cache(maxsize=4096)
def shared_tag(number: int) -> BaseTag:
    """Return the one object for a tag: a dictionary finds the same object at once.

    Two equal objects are compared by a method of Python, which takes as long as the rest of the
    look-up.
    """
    return BaseTag(number)


def scan(data: bytes, start: int) -> Elements | None:
    """Scan a data set in Explicit VR Little Endian (PS3.5 section 7.1.2) to the end of the data.

    Args:
        data: the file.
        start: position of the data set's first element.

    Returns:
        The elements as pydicom's reader makes them, or None if the data set has anything unusual:
        elements out of order, lengths that are undefined or over the end, or a rest that is no
        element.
    """
    found = _scan(data, start, _FIRST_TAG, _LAST_TAG)
    return found.elements if found is not None and found.end == len(data) else None


def scan_meta(data: bytes, start: int) -> tuple[Elements, int] | None:
    """Scan the File Meta Information (PS3.10 section 7.1), and return its end too.

    None if it has anything unusual, as for `scan`.
    """
    found = _scan(data, start, _FIRST_META_TAG, _LAST_META_TAG)
    return None if found is None else (found.elements, found.end)


@dataclass(frozen=True, slots=True)
class _Scanned:
    elements: Elements
    end: int


def _scan(data: bytes, start: int, first_tag: int, last_tag: int) -> _Scanned | None:
    """Scan elements in rising order, up to the end or to a tag beyond the last one."""
    elements: Elements = {}
    previous_tag = first_tag - 1
    num_bytes = len(data)
    while start + _HEAD_BYTES <= num_bytes:
        group, number, vr, length = _HEAD.unpack_from(data, start)
        tag = group << 16 | number
        if tag > last_tag:
            break
        kind = _KINDS.get(vr)
        if kind is None or tag <= previous_tag or len(elements) == MAX_ELEMENTS:
            return None
        name, is_long, value = kind
        value_start = start + _HEAD_BYTES
        if is_long:
            if value_start + 4 > num_bytes:
                return None
            (length,) = _LENGTH.unpack_from(data, value_start)
            value_start += 4
        value_end = start = value_start + length
        if length == _UNDEFINED:
            if tag != _PIXEL_DATA or name not in _ENCAPSULATED:
                return None
            value_end = _end_of_fragments(data, value_start)
            start = value_end + _HEAD_BYTES
        if start > num_bytes:
            return None
        if length:
            value = data[value_start:value_end]
        base_tag = shared_tag(tag)
        elements[base_tag] = RawDataElement(base_tag, name, length, value, value_start, False, True)
        previous_tag = tag
    return _Scanned(elements, start) if elements else None


def _end_of_fragments(data: bytes, start: int) -> int:
    """Return the position of the delimiter behind encapsulated fragments (PS3.5 section A.4).

    If there is none, the position is beyond the data.
    """
    beyond = len(data) + 1
    for _ in range(MAX_FRAGMENTS):
        if start + _HEAD_BYTES > len(data):
            return beyond
        tag, length = _PAIR.unpack_from(data, start)
        if tag == _SEQUENCE_END:
            return start
        if tag != _ITEM:
            return beyond
        start += _HEAD_BYTES + length
    return beyond
