"""Read and write the fields of a protocol buffer message, without knowing its kind.

ONNX files are such messages. Serving reads them here, so that it does not need the package onnx
(https://protobuf.dev/programming-guides/encoding/).
"""

from collections.abc import Iterator

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
"""Wire types."""


def read_fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of each field; raise `IndexError` or `ValueError` for other data."""
    place = 0
    while place < len(data):
        key, place = _read_varint(data, place)
        wire_type = key & 7
        if wire_type == _VARINT:
            value, place = _read_varint(data, place)
            yield key >> 3, value
            continue
        if wire_type == _BYTES:
            size, place = _read_varint(data, place)
        elif wire_type in (_FIXED_32, _FIXED_64):
            size = 4 if wire_type == _FIXED_32 else 8
        else:
            raise ValueError("no field of this type")
        if place + size > len(data):
            raise ValueError("the field is cut short")
        yield key >> 3, data[place : place + size]
        place += size


def _read_varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("the number is too long")


def write_field(number: int, value: int | bytes | memoryview) -> bytes:
    """Return a field of the type varint, or one that holds bytes."""
    if isinstance(value, int):
        return _write_varint(number << 3 | _VARINT) + _write_varint(value)
    return _write_varint(number << 3 | _BYTES) + _write_varint(len(value)) + bytes(value)


def _write_varint(value: int) -> bytes:
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)
