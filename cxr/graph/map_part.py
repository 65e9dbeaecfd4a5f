"""Divide an ONNX model into a part that answers and a part that only draws the map.

    answer part    image        -> logit, novelty
    map part       image, logit -> cam

If one network decides and others draw, a request without a heat map needs the answer part alone.
A session of ONNX Runtime runs all of its nodes, whichever outputs are fetched: its option
`only_execute_path_to_fetches` has no effect in the published packages (measured with 1.32).

The field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from cxr.graph.protocol_buffers import read_fields, write_field

_LEAST_SHARE = 0.05
"""Share of the weights that the map must have for itself, and that both parts may share."""

_GRAPH, _FUNCTIONS = 7, 25
"""Fields of ModelProto."""
_NODE, _WEIGHT, _INPUT, _OUTPUT, _VALUE_INFO, _SPARSE_WEIGHT = 1, 5, 11, 12, 13, 15
"""Fields of GraphProto."""
_NODE_INPUT, _NODE_OUTPUT, _NODE_ATTRIBUTE = 1, 2, 5
_INNER_GRAPHS = (6, 11)
"""Fields of AttributeProto."""
_NAME_OF = {_WEIGHT: 8, _INPUT: 1, _OUTPUT: 1}

_LOGIT, _CAM, _NOVELTY = b"logit", b"cam", b"novelty"


class ModelParts(NamedTuple):
    """Two models that together answer as one."""

    answer: bytes
    map: bytes


@dataclass(frozen=True, slots=True)
class _Entry:
    """A field of a graph, and the values that it makes and needs, by their names."""

    number: int
    value: int | memoryview
    makes: frozenset[bytes] = frozenset()
    needs: frozenset[bytes] = frozenset()
    is_nested: bool = False
    """Whether it is a node with a graph within it, or a sparse weight."""

    @property
    def num_bytes(self) -> int:
        """Its length."""
        return 0 if isinstance(self.value, int) else len(self.value)


def divide(model: bytes) -> ModelParts | None:
    """Return the two parts of a model, or None if its map is no work of its own.

    A model that reads metadata, or has graphs within its nodes, is not divided.

    Raises:
        IndexError, ValueError: the bytes are no ONNX model.
    """
    fields = list(read_fields(memoryview(model)))
    graphs = [value for number, value in fields if number == _GRAPH]
    if len(graphs) != 1 or isinstance(graphs[0], int) or _FUNCTIONS in dict(fields):
        return None
    entries = [_read(number, value) for number, value in read_fields(graphs[0])]
    if not _has_plain_interface(entries) or any(entry.is_nested for entry in entries):
        return None
    answer = _part(entries, {_LOGIT, _NOVELTY})
    drawing = _part(entries, {_CAM}, given=_LOGIT)
    if not _is_worth_it(entries, answer, drawing):
        return None
    return ModelParts(*(_with_graph(fields, part) for part in (answer, drawing)))


def _read(number: int, value: int | memoryview) -> _Entry:
    if isinstance(value, int):
        return _Entry(number, value)
    if number in _NAME_OF:
        names = [name for field, name in read_fields(value) if field == _NAME_OF[number]]
        return _Entry(number, value, makes=_names(names))
    if number != _NODE:
        return _Entry(number, value, is_nested=number == _SPARSE_WEIGHT)
    fields = list(read_fields(value))
    return _Entry(
        number,
        value,
        makes=_names(name for field, name in fields if field == _NODE_OUTPUT),
        needs=_names(name for field, name in fields if field == _NODE_INPUT),
        is_nested=any(
            inner in _INNER_GRAPHS
            for field, attribute in fields
            if field == _NODE_ATTRIBUTE and not isinstance(attribute, int)
            for inner, _ in read_fields(attribute)
        ),
    )


def _names(values: Iterable[int | memoryview]) -> frozenset[bytes]:
    """Return the names of values; an optional value that is left out has an empty one."""
    return frozenset(bytes(value) for value in values if not isinstance(value, int)) - {b""}


def _has_plain_interface(entries: Sequence[_Entry]) -> bool:
    inputs = [entry.makes for entry in entries if entry.number == _INPUT]
    outputs = [entry.makes for entry in entries if entry.number == _OUTPUT]
    return inputs == [{b"image"}] and sorted(outputs, key=sorted) == [{_CAM}, {_LOGIT}, {_NOVELTY}]


def _part(entries: Sequence[_Entry], wanted: set[bytes], *, given: bytes = b"") -> list[_Entry]:
    """Return what makes the wanted outputs, in the order of the model; `given` becomes an input."""
    needed = set(wanted)
    for entry in reversed(entries):  # nodes stand after those whose values they need
        if entry.number == _NODE and entry.makes & needed - {given}:
            needed |= entry.needs
    part = []
    for entry in entries:
        if entry.number == _OUTPUT and given in entry.makes:
            part.append(replace(entry, number=_INPUT))
        elif entry.number == _NODE:
            part += [entry] if entry.makes & needed - {given} else []
        elif entry.number in (_WEIGHT, _INPUT):
            part += [entry] if entry.makes & needed else []
        elif entry.number == _OUTPUT:
            part += [entry] if entry.makes & wanted else []
        elif entry.number != _VALUE_INFO:
            part.append(entry)
    return part


def _is_worth_it(
    entries: Sequence[_Entry], answer: Sequence[_Entry], drawing: Sequence[_Entry]
) -> bool:
    """Tell whether the map has weights of its own, and both parts share next to none."""
    both = frozenset[bytes]().union(*(entry.makes for entry in answer if entry.number == _WEIGHT))
    shared = sum(entry.num_bytes for entry in drawing if entry.makes & both)
    own = sum(entry.num_bytes for entry in drawing if entry.number == _WEIGHT) - shared
    least = _LEAST_SHARE * sum(entry.num_bytes for entry in entries if entry.number == _WEIGHT)
    return shared <= least <= own


def _with_graph(fields: Iterable[tuple[int, int | memoryview]], part: Iterable[_Entry]) -> bytes:
    """Return the model with a part of its graph in place of all of it."""
    graph = b"".join(write_field(entry.number, entry.value) for entry in part)
    return b"".join(
        write_field(number, graph if number == _GRAPH else value) for number, value in fields
    )
