"""Release gates of a graph file: format, size, and agreement with the network.

Errors of maps and distances are relative to max(1, |value|): a map's cells may
be tens of logits, a distance hundreds, and float32 has seven digits.

Shape suffixes: N images, H and W input rows and columns, h and w map rows and columns, M columns of
metadata.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from cxr.graph import Graph
from cxr.interpret import Cam, Outputs
from cxr.manifest import Parity
from training.bundle.onnx_export import INTERFACES
from training.bundle.release_gates.gate import ReleaseGate, at_most, largest, relative

BATCH_SIZES = (1, 2, 7, 64)
"""The batch sizes at which the graph is compared with the network, and with itself alone."""

_NETWORK_BATCH = 8

_MAX_LOGIT_ERROR = 1e-4
_MAX_OUTPUT_ERROR = 1e-3
_MAX_BATCH_ERROR = 1e-5
_MAX_CAM_IDENTITY_ERROR = 1e-5
MAX_FILE_BYTES = 30_000_000
"""The largest graph that this repository ships."""

_MIN_OPSET = 18

Metadata = NDArray[np.float32] | None
Runner = Callable[[NDArray[np.uint8], Metadata], Outputs]


def file_gates(path: Path, max_bytes: int = MAX_FILE_BYTES) -> Iterator[ReleaseGate]:
    """Check a graph file without running it."""
    yield _checker_gate(path)
    model = onnx.load(path, load_external_data=False)
    foreign = sorted({node.domain for node in model.graph.node} - {"", "ai.onnx"})
    yield ReleaseGate(
        "only ai.onnx operators",
        f"foreign domains {foreign or 'none'}",
        not foreign and not model.functions,
    )
    opset = opset_of(model)
    yield ReleaseGate("opset", f"{opset}, at least {_MIN_OPSET}", opset >= _MIN_OPSET)
    yield _interface_gate(model)
    external = sum(
        tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer
    )
    yield ReleaseGate("one file", f"{external} tensors outside it", external == 0)
    size = path.stat().st_size
    yield ReleaseGate(
        "file size", f"{size / 1e6:.1f} MB, at most {max_bytes / 1e6:.0f} MB", size <= max_bytes
    )


def measure_parity(
    network: Runner,
    graph: Graph,
    image_NHW: NDArray[np.uint8],
    cam: Cam,
    metadata_NM: Metadata = None,
) -> Parity:
    """Measure how far a graph lies from its network, from itself at other batch sizes, and from its
    own map.
    """
    wanted = _in_batches(network, image_NHW, metadata_NM, _NETWORK_BATCH)
    alone, *grouped = [_in_batches(graph.run, image_NHW, metadata_NM, size) for size in BATCH_SIZES]
    answers = (alone, *grouped)
    return Parity(
        images=len(image_NHW),
        max_logit_error=largest(np.abs(wanted.logit_N - got.logit_N) for got in answers),
        max_cam_error=largest(relative(wanted.cam_Nhw, got.cam_Nhw) for got in answers),
        max_novelty_error=largest(relative(wanted.novelty_N, got.novelty_N) for got in answers),
        max_cam_identity_error=largest(
            relative(got.logit_N, pool(got.cam_Nhw, cam, got.bias_N)) for got in answers
        ),
        max_batch_error=largest(relative(alone.logit_N, got.logit_N) for got in grouped),
    )


def parity_gates(parity: Parity) -> Iterator[ReleaseGate]:
    """Hold measured errors to their limits; NaN fails."""
    sizes = ", ".join(map(str, BATCH_SIZES))
    yield at_most(f"logit against torch, batches {sizes}", parity.max_logit_error, _MAX_LOGIT_ERROR)
    yield at_most("cam against torch (relative)", parity.max_cam_error, _MAX_OUTPUT_ERROR)
    yield at_most("novelty against torch (relative)", parity.max_novelty_error, _MAX_OUTPUT_ERROR)
    yield at_most(
        "logit alone against batched (relative)", parity.max_batch_error, _MAX_BATCH_ERROR
    )
    yield at_most(
        "pool(cam) + bias against logit (relative)",
        parity.max_cam_identity_error,
        _MAX_CAM_IDENTITY_ERROR,
    )


def pool(
    cam_Nhw: NDArray[np.float32], cam: Cam, bias_N: NDArray[np.float32] | None = None
) -> NDArray[np.float64]:
    """Pool a map to its logit: `mean`, or `lse` (log of the mean exponential), plus the bias."""
    bias = cam.bias if bias_N is None else bias_N.astype(np.float64)
    cells_NC = cam_Nhw.reshape(len(cam_Nhw), -1).astype(np.float64)
    if cam.pool == "mean":
        return np.asarray(cells_NC.mean(axis=1) + bias)
    return np.asarray(np.logaddexp.reduce(cells_NC, axis=1) - np.log(cells_NC.shape[1]) + bias)


def edge_images(size: int) -> NDArray[np.uint8]:
    """Return eight synthetic images [8, size, size]: flat, ramps, noise, checkers, a square."""
    rows_HW, columns_HW = np.mgrid[:size, :size]
    square_HW = (np.abs(rows_HW - size // 2) < size // 4) & (
        np.abs(columns_HW - size // 2) < size // 4
    )
    noise_HW = np.random.default_rng(0).integers(0, 256, (size, size))
    images = [
        np.zeros((size, size)), np.full((size, size), 255),
        rows_HW * 255 // (size - 1), columns_HW * 255 // (size - 1), noise_HW,
        (rows_HW + columns_HW) % 2 * 255, (rows_HW // 8 + columns_HW // 8) % 2 * 255,
        square_HW * 255,
    ]  # fmt: skip
    return np.stack(images).astype(np.uint8)


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the standard operators that a model uses."""
    return int(
        next(entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"})
    )


def _checker_gate(path: Path) -> ReleaseGate:
    try:
        onnx.checker.check_model(path, full_check=True)
        onnx.shape_inference.infer_shapes(
            onnx.load(path), check_type=True, strict_mode=True, data_prop=True
        )
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        return ReleaseGate(
            "onnx checker and strict shape inference", str(exc).splitlines()[0], False
        )
    return ReleaseGate("onnx checker and strict shape inference", "no complaint", True)


def _interface_gate(model: onnx.ModelProto) -> ReleaseGate:
    """Compare names, types and free batch axes with the contract of the graph."""
    image = model.graph.input[0].type.tensor_type
    names = (
        tuple(value.name for value in model.graph.input),
        tuple(value.name for value in model.graph.output),
    )
    types = {value.type.tensor_type.elem_type for value in model.graph.output}
    free = all(
        bool(value.type.tensor_type.shape.dim[0].dim_param)
        for value in (*model.graph.input, *model.graph.output)
    )
    holds = (
        names in INTERFACES
        and image.elem_type == onnx.TensorProto.UINT8
        and types == {onnx.TensorProto.FLOAT}
        and free
    )
    return ReleaseGate(
        "inputs and outputs",
        f"{' '.join(names[0])} -> {' '.join(names[1])}, batch axis {'free' if free else 'fixed'}",
        holds,
    )


def _in_batches(
    run: Runner, image_NHW: NDArray[np.uint8], metadata_NM: Metadata, size: int
) -> Outputs:
    places = [slice(start, start + size) for start in range(0, len(image_NHW), size)]
    parts = [
        run(image_NHW[place], None if metadata_NM is None else metadata_NM[place])
        for place in places
    ]
    biases = [part.bias_N for part in parts if part.bias_N is not None]
    return Outputs(
        np.concatenate([part.logit_N for part in parts]),
        np.concatenate([part.cam_Nhw for part in parts]),
        np.concatenate([part.novelty_N for part in parts]),
        np.concatenate(biases) if biases else None,
    )
