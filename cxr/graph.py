"""Open a bundle's ONNX graph, prove it, run batches.

This is the one seam of the system: tests put a graph of their own in its place.

Shape suffixes: N images, H and W input rows and columns, h and w map rows and columns.
"""

from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from cxr.bundle import Bundle, Golden
from cxr.errors import BundleError, GraphError
from cxr.interpret import Outputs

Device = Literal["cpu", "gpu"]


class Graph(Protocol):
    """Anything that answers batches: `OnnxGraph`, or a test's own."""

    engine: str
    precision: str

    def run(self, batch_NHW: NDArray[np.uint8]) -> Outputs:
        """Answer a batch, in order; safe to call from several threads. Raises `GraphError`."""
        ...


class OnnxGraph:
    """A `model.onnx` in ONNX Runtime; `run` may be called from several threads at once."""

    precision = "fp32"

    def __init__(self, path: Path, *, device: Device = "cpu", threads: int = 1) -> None:
        """Open `path` on a device with `threads` threads a run; raises `BundleError`.

        A graph that was asked for on the GPU never falls back to the CPU in silence.
        """
        wanted = _PROVIDERS[device]
        if device == "gpu":
            _preload_cuda()
        if wanted not in ort.get_available_providers():
            raise BundleError(f"this ONNX Runtime has no {wanted}; install the gpu extra, or set the device to cpu")
        try:
            self._session = ort.InferenceSession(path, _options(threads), providers=[wanted])
        except Exception as exc:  # ONNX Runtime raises classes of its own without a common base
            raise BundleError(f"the graph does not open in ONNX Runtime: {type(exc).__name__}") from exc
        if self._session.get_providers()[0] != wanted:
            raise BundleError(f"ONNX Runtime could not start {wanted}; see its own message above, or set the device to cpu")
        self.engine = f"onnxruntime-{device}"

    @property
    def properties(self) -> dict[str, str]:
        """The essentials that the file carries about itself (ONNX metadata_props)."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, batch_NHW: NDArray[np.uint8]) -> Outputs:
        """Answer a batch, uint8 [N, H, W], in order; raises `GraphError`."""
        try:
            logit_N, cam_Nhw, novelty_N = self._session.run(["logit", "cam", "novelty"], {"image": batch_NHW})
        except Exception as exc:  # as above
            raise GraphError(f"ONNX Runtime could not run the batch: {type(exc).__name__}") from exc
        return Outputs(logit_N, cam_Nhw, novelty_N)


def open_graph(bundle: Bundle, *, device: Device = "cpu", threads: int = 1) -> OnnxGraph:
    """Open a bundle's graph and prove it on the golden phantoms; raises `BundleError`."""
    graph = OnnxGraph(bundle.graph_path, device=device, threads=threads)
    check_golden(graph, bundle.golden)
    return graph


def check_golden(graph: Graph, golden: Golden) -> None:
    """Compare a graph's answers with the bundle's golden ones; raises `BundleError`."""
    try:
        outputs = graph.run(golden.image_NHW)
    except GraphError as exc:
        raise BundleError("golden check: the graph can't run the golden images") from exc
    tolerance = golden.tolerance(graph.engine, graph.precision)
    for name, wanted, got in (
        ("logit", golden.logit_N, outputs.logit_N),
        ("cam", golden.cam_Nhw, outputs.cam_Nhw),
        ("novelty", golden.novelty_N, outputs.novelty_N),
    ):
        if wanted.shape != got.shape:
            raise BundleError(f"golden check: {name} has the shape {got.shape} instead of {wanted.shape}")
        worst = float(np.max(np.abs(wanted - got) / np.maximum(1.0, np.abs(wanted))))
        if not worst <= tolerance:  # written so that a NaN fails
            raise BundleError(f"golden check: {name} is off by {worst:.2g}, more than {tolerance:.2g}")


_PROVIDERS: dict[Device, str] = {"cpu": "CPUExecutionProvider", "gpu": "CUDAExecutionProvider"}


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A spinning thread steals the core on which the next image is decoded.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _preload_cuda() -> None:
    preload: Any = getattr(ort, "preload_dlls", None)
    if preload is not None:
        preload()
