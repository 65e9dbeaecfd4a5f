"""Open a bundle's ONNX graph, prove it, run batches.

Tests replace the graph by one of their own. Another engine is another class like `OnnxGraph`.

Shape suffixes: N images, H and W input rows and columns, M columns of metadata.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cxr.bundle import Bundle
from cxr.errors import BundleError, GraphError
from cxr.golden_answers import Golden
from cxr.graph.onnx import OnnxGraph
from cxr.graph.openvino import OpenVinoGraph
from cxr.graph.runtime import Device, Engine, Precision, Runtime
from cxr.interpret import Outputs
from cxr.manifest import GraphFile

__all__ = [
    "Device",
    "Engine",
    "Graph",
    "OnnxGraph",
    "OpenVinoGraph",
    "Precision",
    "Runtime",
    "check_golden",
    "open_graph",
]


class Graph(Protocol):
    """Anything that answers batches: `OnnxGraph`, `OpenVinoGraph`, or a test's own."""

    engine: str
    precision: str
    num_facts: int
    """Columns of the second input; 0 if the graph reads the image alone."""

    def run(
        self,
        batch_NHW: NDArray[np.uint8],
        metadata_NM: NDArray[np.float32] | None = None,
        *,
        with_map: bool = True,
    ) -> Outputs:
        """Answer a batch, in order; safe to call from several threads. Raises `GraphError`.

        Args:
            batch_NHW: images of the graph's input size.
            metadata_NM: the second input, as `cxr.metadata_features` writes it; None if nothing is
                known.
            with_map: whether the map is wanted; without it a run may be shorter.
        """
        ...


def open_graph(bundle: Bundle, runtime: Runtime = Runtime()) -> Graph:  # noqa: B008 -- frozen
    """Open a bundle's graph and prove it on the golden phantoms; raises `BundleError`."""
    file, precision = _choose_file(bundle, runtime)
    kind = OpenVinoGraph if runtime.engine == "openvino" else OnnxGraph
    graph = kind(bundle.read_graph(file), runtime, precision=precision)
    if graph.num_facts != len(bundle.manifest.metadata):
        raise BundleError("the graph reads other metadata than bundle.json says")
    check_golden(graph, bundle.golden)
    return graph


def _choose_file(bundle: Bundle, runtime: Runtime) -> tuple[GraphFile, str]:
    """Return the graph's file and precision; raise `BundleError` if `fast` is not allowed."""
    if runtime.precision == "exact":
        return bundle.manifest.graphs[0], "fp32"
    fast = bundle.manifest.fast
    if fast is None:
        raise BundleError(
            "precision fast is not allowed: its cost was not measured for this model, or was too "
            "high"
        )
    if fast.engine != runtime.name:
        raise BundleError(
            f"precision fast is not allowed on {runtime.name}: it was measured on {fast.engine}"
        )
    stored = (
        "fp16" if fast.precision == "fp16" else "fp32"
    )  # bf16 is made of the fp32 graph while it is opened
    files = [graph for graph in bundle.manifest.graphs if graph.precision == stored]
    if not files:
        raise BundleError(f"the bundle has no {stored} graph")
    return files[0], fast.precision


def check_golden(graph: Graph, golden: Golden) -> None:
    """Compare a graph's answers with the bundle's golden ones; raises `BundleError`."""
    try:  # one at a time: an engine keeps the memory of the largest batch that it ever ran
        answers = [
            graph.run(
                golden.image_NHW[i : i + 1],
                None if golden.metadata_NM is None else golden.metadata_NM[i : i + 1],
            )
            for i in range(len(golden.image_NHW))
        ]
    except GraphError as exc:
        raise BundleError("golden check: the graph can't run the golden images") from exc
    tolerance = golden.tolerance(graph.engine, graph.precision)
    for name, wanted, got in (
        ("logit", golden.logit_N, np.concatenate([answer.logit_N for answer in answers])),
        ("cam", golden.cam_Nhw, np.concatenate([answer.cam_Nhw for answer in answers])),
        ("novelty", golden.novelty_N, np.concatenate([answer.novelty_N for answer in answers])),
    ):
        if wanted.shape != got.shape:
            raise BundleError(
                f"golden check: {name} has the shape {got.shape} instead of {wanted.shape}"
            )
        worst = float(np.max(np.abs(wanted - got) / np.maximum(1.0, np.abs(wanted))))
        if not worst <= tolerance:  # written so that a NaN fails
            raise BundleError(
                f"golden check: {name} is off by {worst:.2g}, more than {tolerance:.2g}"
            )
