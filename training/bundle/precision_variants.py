"""Other ways to run a bundle's graph: files in fp16 and int8, OpenVINO in bf16.

Each precision is measured on every fold's graph and held-out images, and kept if all its gates
hold. If one is refused, the bundle ships without it; `metrics.json` and the card have the reason.

Shape suffixes: N images, H and W input rows and columns.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr.errors import BundleError
from cxr.golden_answers import Golden
from cxr.graph import Graph, OnnxGraph, OpenVinoGraph
from cxr.interpret import PLAIN_PROFILE, DecisionProfile, Outputs
from cxr.manifest import FastPrecision
from cxr.tta import PLAIN
from training.bundle.bf16 import (
    MIN_IMAGES,
    OPENVINO,
    Bf16Decision,
    NotMeasurable,
    golden_gate,
    joined,
    judge,
    judge_fast,
    openvino_is_installed,
)
from training.bundle.convert_precision import CONVERTERS, StoredPrecision
from training.bundle.held_out import HeldOut, metadata_of
from training.bundle.precision_cost import Cost, calibration_positions, cost_gates, measure_cost
from training.bundle.release_gates.gate import TOLERANCES, ReleaseGate, agreement_gate
from training.bundle.release_gates.graph_gates import file_gates
from training.evaluation.predict import predict
from training.fit.batches import open_cache
from training.fit.run_dir import Run


@dataclass(frozen=True, slots=True)
class Reference:
    """The reference of a measurement: the fp32 graphs and their answers to held-out images."""

    run: Run
    held_out: HeldOut
    graphs: Mapping[int, Path]
    """The graph of each held-out fold, from `training.bundle.held_out.fold_graphs`."""
    profile: DecisionProfile
    golden: Golden

    def cost_of(self, open_fold: Callable[[int, Path], Graph]) -> Cost:
        """Answer each held-out image by the graph that `open_fold` returns for its fold, and
        compare.
        """
        images_NHW, views, metadata_at = open_cache(self.run), (PLAIN,), metadata_of(self.run)
        parts = [
            outputs
            for fold, path in self.graphs.items()
            for _, outputs in predict(
                open_fold(fold, path),
                ((i, images_NHW[i]) for i in self.run.held_out(fold)),
                views,
                metadata_at,
            )
        ]
        held_out = self.held_out
        exact = Outputs(
            held_out.logit(PLAIN_PROFILE).astype(np.float32),
            held_out.cam_Nhw,
            held_out.novelty_N.astype(np.float32),
        )
        return measure_cost(held_out.label_N, exact, joined(parts), self.profile)

    def calibration_images(self, folds: tuple[int, ...]) -> NDArray[np.uint8]:
        """Draw held-out images of these folds to calibrate int8 on."""
        position_N = np.concatenate([self.run.held_out(fold) for fold in folds])
        chosen = position_N[calibration_positions(self.run.index.label_N[position_N])]
        return np.asarray(open_cache(self.run)[np.sort(chosen)])


@dataclass(frozen=True, slots=True)
class PrecisionVariants:
    """The files and decisions of the other precisions."""

    files: dict[StoredPrecision, Path]
    """Graph files that the bundle may ship."""
    verdicts: dict[str, Bf16Decision]
    fast: FastPrecision | None


def make_variants(
    yardstick: Reference, graph: Path, precisions: Sequence[StoredPrecision], max_bytes: int
) -> PrecisionVariants:
    """Write the wanted precisions into the folder of `graph`, and measure OpenVINO's bf16."""
    files = {precision: graph.with_name(f"model.{precision}.onnx") for precision in precisions}
    verdicts: dict[str, Bf16Decision] = {
        precision: convert(yardstick, precision, graph, path, max_bytes)
        for precision, path in files.items()
    }
    verdicts["bf16"], fast = measure_fast(yardstick, graph)
    return PrecisionVariants(
        {precision: path for precision, path in files.items() if path.is_file()}, verdicts, fast
    )


def convert(
    yardstick: Reference, precision: StoredPrecision, graph: Path, converted: Path, max_bytes: int
) -> Bf16Decision:
    """Write `graph` in another precision to `converted`; the file is deleted if a gate fails."""
    print(f"converting to {precision}", flush=True)
    to_precision, folds = CONVERTERS[precision], tuple(yardstick.graphs)
    to_precision(graph, converted, yardstick.calibration_images(folds))
    with tempfile.TemporaryDirectory() as folder:

        def open_fold(fold: int, path: Path) -> OnnxGraph:
            if path == graph:
                return OnnxGraph(converted, precision=precision)
            mine = Path(folder) / path.name
            to_precision(path, mine, yardstick.calibration_images((fold,)))
            return OnnxGraph(mine, precision=precision)

        cost = yardstick.cost_of(open_fold)

    def gates() -> Iterator[ReleaseGate]:
        yield from file_gates(converted, max_bytes)
        yield from cost_gates(precision, cost)
        yield golden_gate(yardstick.golden, OnnxGraph(converted, precision=precision))

    verdict = judge(precision, cost, gates())
    if not verdict.holds:
        converted.unlink()
    return verdict


def measure_fast(
    yardstick: Reference, graph: Path, *, min_images: int = MIN_IMAGES
) -> tuple[Bf16Decision, FastPrecision | None]:
    """Measure OpenVINO in bf16, if it is installed, the processor has bf16 instructions, and there
    are enough images.
    """
    held_out = len(yardstick.held_out.label_N)
    try:
        if held_out < min_images:
            raise NotMeasurable(f"it takes {min_images} held-out images, and there are {held_out}")
        return judge_fast(
            graph, yardstick.golden, lambda opener: yardstick.cost_of(lambda _, path: opener(path))
        )
    except NotMeasurable as exc:
        print(f"  precision fast was not measured: {exc}", flush=True)
        return Bf16Decision(None, (f"not measured: {exc}",)), None


def openvino_gates(path: Path, image_NHW: NDArray[np.uint8]) -> Iterator[ReleaseGate]:
    """Compare OpenVINO with ONNX Runtime in fp32. If OpenVINO is not installed, print that and
    check nothing.
    """
    name = "OpenVINO against ONNX Runtime (relative)"
    if not openvino_is_installed():
        print(f"  not checked: {name}; it is not installed", flush=True)
        return
    try:
        answers = OpenVinoGraph(path, OPENVINO).run(image_NHW)
    except BundleError as exc:
        yield ReleaseGate(name, str(exc), holds=False)
    else:
        yield agreement_gate(
            name, OnnxGraph(path).run(image_NHW), answers, TOLERANCES["openvino-cpu/fp32"]
        )
