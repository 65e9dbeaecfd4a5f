"""Write a graph in another precision: fp16, or int8 with scales from calibration images.

Only the backbone is converted, from its first convolutions to the features that the
head reads.  The head, the pooling and the novelty stay fp32: they cost next to nothing,
`pool(cam) + bias == logit` stays exact, and squared distances don't leave fp16's range.

Shape suffixes: N images, H and W input rows and columns.
"""

import contextlib
import io
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

StoredPrecision = Literal["fp16", "int8"]

Converter = Callable[[Path, Path, NDArray[np.uint8]], None]
"""Writes the graph of the first path to the second, given calibration images uint8 [N, H, W]."""

_PERCENTILE = 99.99
"""Of an activation's values, what its scale spans; the rest is cut off (Wu et al. 2020, section
3.2)."""

_QUANTIZED = ("Conv", "Add", "Concat", "MaxPool", "AveragePool")
"""Operators that have a kernel in int8 worth having; gates (Mul, Sigmoid) have too wide a range for
eight bits."""

_BATCH = 8
"""Calibration images of one run: every activation of a run is held in memory."""


def to_fp16(graph: Path, converted: Path, _: NDArray[np.uint8]) -> None:
    """Write `graph` with its backbone in fp16; inputs and outputs keep their types."""
    model = onnx.load(graph)
    backbone = set(backbone_nodes(model))
    kept = [node.name for node in model.graph.node if node.name not in backbone]
    half = ONNXModel(convert_float_to_float16(model, keep_io_types=True, node_block_list=kept))
    _bypass_fp16(half.model.graph)
    half.topological_sort()
    onnx.save_model(half.model, converted)


def to_int8(graph: Path, converted: Path, image_NHW: NDArray[np.uint8]) -> None:
    """Write `graph` with its backbone in int8: uint8 activations, int8 weights by channel, as QDQ
    pairs.

    A processor without VNNI adds products in pairs, and eight-bit factors may saturate there; see
    `docs/engines.md`.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(
            graph, prepared, skip_symbolic_shape=True
        )  # folds batch norms into convolutions
        model = onnx.load(prepared)
        for number, node in enumerate(model.graph.node):
            node.name = node.name or f"node_{number}"
        onnx.save_model(model, prepared)
        quantize_static(
            prepared,
            converted,
            _Batches(image_NHW, _num_facts(model)),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,
            op_types_to_quantize=_QUANTIZED,
            nodes_to_quantize=backbone_nodes(model),
            extra_options={
                "CalibPercentile": _PERCENTILE,
                "CalibTensorRangeSymmetric": False,
                # batch by batch, whatever the method: all activations at once would not fit
                "CalibStridedMinMax": 1,
            },
        )
    _restore_properties(converted, onnx.load(graph))


CONVERTERS: dict[StoredPrecision, Converter] = {"fp16": to_fp16, "int8": to_int8}


def backbone_nodes(model: onnx.ModelProto) -> list[str]:
    """Return the names of a graph's nodes from its first convolutions up to its heads: those
    convolutions that no other reads, and that are left out. Two if one network draws for another.
    """
    maker = {output: node for node in model.graph.node for output in node.output}
    below_of = {
        node.name: {one.name for one in _upstream(maker, node.input[0])}
        for node in model.graph.node
        if node.op_type == "Conv"
    }
    read_by_others = set[str]().union(*below_of.values())
    heads = below_of.keys() - read_by_others
    below = set[str]().union(*(below_of[head] for head in heads))
    names, after_conv = [], set[str]()
    for node in model.graph.node:  # in an order that can be run
        if node.name in below and (node.op_type == "Conv" or after_conv & set(node.input)):
            names.append(node.name)
            after_conv.update(node.output)
    return names


def _upstream(maker: dict[str, onnx.NodeProto], tensor: str) -> Iterator[onnx.NodeProto]:
    """Return the nodes that a tensor comes from, nearest first, each once."""
    waiting, seen = [tensor], set[str]()
    while waiting:
        name = waiting.pop(0)
        if name in maker and name not in seen:
            seen.add(name)
            yield maker[name]
            waiting.extend(maker[name].input)


def _bypass_fp16(graph: onnx.GraphProto) -> None:
    """Connect nodes that stay fp32 directly: the converter casts whatever passes between two of
    them to fp16 and back.
    """
    narrowed = {
        node.output[0]: node.input[0]
        for node in graph.node
        if _casts_to(node, onnx.TensorProto.FLOAT16)
    }
    direct = {
        node.output[0]: narrowed[node.input[0]]
        for node in graph.node
        if _casts_to(node, onnx.TensorProto.FLOAT) and node.input[0] in narrowed
    }
    for node in graph.node:
        for number, name in enumerate(node.input):
            node.input[number] = direct.get(name, name)
    for node in graph.node:  # what is left of the pairs are casts that give an output of the graph
        if node.output[0] in direct:
            node.input[0] = direct[node.output[0]]
    wanted = {name for node in graph.node for name in node.input} | {
        output.name for output in graph.output
    }
    kept = [node for node in graph.node if wanted.intersection(node.output)]
    del graph.node[:], graph.value_info[:]  # the types noted in the latter are no longer right
    graph.node.extend(kept)


def _casts_to(node: onnx.NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and node.attribute[0].i == kind


class _Batches(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Calibration images in batches, as `quantize_static` asks for them: a range of batches, then
    one after the other.
    """

    def __init__(self, image_NHW: NDArray[np.uint8], num_facts: int) -> None:
        self._num_facts = num_facts  # all unknown: nothing that is quantized reads them
        self._batches = [
            image_NHW[start : start + _BATCH] for start in range(0, len(image_NHW), _BATCH)
        ]
        self._chosen = iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Choose the batches that `get_next` returns next."""
        self._chosen = iter(self._batches[start_index:end_index])

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch by the input's name, None after the last."""
        batch_NHW = next(self._chosen, None)
        if batch_NHW is None:
            return None
        unknown = (
            {"metadata": np.zeros((len(batch_NHW), self._num_facts), np.float32)}
            if self._num_facts
            else {}
        )
        return {"image": batch_NHW} | unknown


def _num_facts(model: onnx.ModelProto) -> int:
    """Return the number of columns of the input `metadata`; 0 if there is none."""
    shapes = {entry.name: entry.type.tensor_type.shape for entry in model.graph.input}
    return int(shapes["metadata"].dim[1].dim_value) if "metadata" in shapes else 0


def _restore_properties(path: Path, original: onnx.ModelProto) -> None:
    """Restore the graph's own properties: optimizer and quantizer write their names and unused
    operator sets into it.
    """
    model = onnx.load(path)
    model.producer_name, model.producer_version = original.producer_name, original.producer_version
    del model.opset_import[:]
    model.opset_import.extend(original.opset_import)
    onnx.helper.set_model_props(
        model, {entry.key: entry.value for entry in original.metadata_props}
    )
    onnx.save_model(model, path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the quantizer's prints and its advice to the root logger; its errors still come as
    exceptions.
    """
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
