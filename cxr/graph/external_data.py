"""Whether an ONNX model keeps weights outside its own file.

Such weights are read from other files by name, and the hash of the model does not cover them. The
model is read as protocol buffers, so that serving does not need the package onnx
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3).
"""

from dataclasses import dataclass, field

from cxr.errors import BundleError
from cxr.graph.protocol_buffers import read_fields

_MAX_DEPTH = 64
"""Nested graphs, each of which is three messages deep."""

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
    for number, value in read_fields(data):
        if kind is _TENSOR and number in (_EXTERNAL_DATA, _DATA_LOCATION) and value:
            raise BundleError("the graph keeps weights outside its own file")
        inner = kind.fields.get(number)
        if inner is not None and isinstance(value, memoryview):
            _check(value, inner, depth + 1)
