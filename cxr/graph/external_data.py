"""Whether an ONNX model keeps weights outside its own file.

Such weights are read from other files by name, and the hash of the model does not cover them. The
model is read as protocol buffers, so that serving does not need the package onnx
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from cxr.errors import BundleError

_MAX_DEPTH = 64
"""Nested graphs, each of which is three messages deep."""

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
"""Wire types (https://protobuf.dev/programming-guides/encoding/)."""

_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
"""Fields of TensorProto."""


@dataclass(eq=False, slots=True)
class _Message:
    """A kind of message: which of its fields hold which kinds of messages."""

    fields: dict[int, "_Message"] = field(default_factory=dict)


_TENSOR = _Message()
_SPARSE = _Message({1: _TENSOR, 2: _TENSOR})
_ATTRIBUTE = _Message({5: _TENSOR, 10: _TENSOR, 22: _SPARSE, 23: _SPARSE})
_NODE = _Message({5: _ATTRIBUTE})
_GRAPH = _Message({1: _NODE, 5: _TENSOR, 15: _SPARSE})
_ATTRIBUTE.fields.update({6: _GRAPH, 11: _GRAPH})
_FUNCTION = _Message({7: _NODE, 11: _ATTRIBUTE})
_TRAINING = _Message({1: _GRAPH, 2: _GRAPH})
_MODEL = _Message({7: _GRAPH, 20: _TRAINING, 25: _FUNCTION})


def check_no_external_data(model: bytes) -> None:
    """Raise `BundleError` if a model refers to other files, or is no ONNX model."""
    try:
        _check(memoryview(model), _MODEL, 0)
    except (IndexError, ValueError) as exc:
        raise BundleError("the graph is no ONNX model") from exc


def _check(data: memoryview, kind: _Message, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise BundleError("the graph is nested too deeply")
    for number, value in _fields(data):
        if kind is _TENSOR and number in (_EXTERNAL_DATA, _DATA_LOCATION) and value:
            raise BundleError("the graph keeps weights outside its own file")
        inner = kind.fields.get(number)
        if inner is not None and isinstance(value, memoryview):
            _check(value, inner, depth + 1)


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of each field; raise `IndexError` or `ValueError` for other data."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        wire_type = key & 7
        if wire_type == _VARINT:
            value, place = _varint(data, place)
            yield key >> 3, value
            continue
        if wire_type == _BYTES:
            size, place = _varint(data, place)
        elif wire_type in (_FIXED_32, _FIXED_64):
            size = 4 if wire_type == _FIXED_32 else 8
        else:
            raise ValueError("no field of this type")
        if place + size > len(data):
            raise ValueError("the field is cut short")
        yield key >> 3, data[place : place + size]
        place += size


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("the number is too long")
