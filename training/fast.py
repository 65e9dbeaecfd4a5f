"""`CXR_PRECISION=fast`: OpenVINO's bf16 beside fp32, measured at export, or later on a bundle that was exported elsewhere.

Only a processor with bf16 instructions of its own can measure it: others emulate what they have none for.

Shape suffixes: N images, H and W input rows and columns, M columns of metadata.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr.bundle import Bundle, FastPrecision, Golden
from cxr.graph import Graph, OnnxGraph, OpenVinoGraph, Runtime
from cxr.interpret import PLAIN_READING, Outputs
from cxr.tta import PLAIN
from training.errors import TrainingError
from training.gate import TOLERANCES, Gate, agreement_gate, failures
from training.precision import Cost, bf16_instructions, cost_gates, measure_cost
from training.predict import predict

OPENVINO = Runtime(engine="openvino")

Seen = tuple[NDArray[np.uint8], NDArray[np.float32]]
"""An image and what is known beside it, `image_HW` and `metadata_M`."""


class NotMeasurable(TrainingError):
    """A precision can't be measured on this machine or on these images; the message says why."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was measured of another way to run a graph, and which gates it failed."""

    cost: Cost | None
    failed: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether it may go into the bundle."""
        return not self.failed

    def as_dict(self) -> dict[str, Any]:
        """Give the verdict as `metrics.json` states it."""
        figures = self.cost.as_dict() if self.cost else {}
        return figures | {"allowed": self.holds, "refused_for": list(self.failed)}


def judge(name: str, cost: Cost, gates: Iterator[Gate] | tuple[Gate, ...]) -> Verdict:
    """Print the gates of a measured precision, and say what came of them."""
    failed = failures(gates)
    if failed:
        print(f"  {name} REFUSED: {'; '.join(f'{gate.name}: {gate.figure}' for gate in failed)}", flush=True)
    return Verdict(cost, tuple(f"{gate.name}: {gate.figure}" for gate in failed))


def golden_gate(golden: Golden, graph: Graph) -> Gate:
    """Let a graph answer the golden inputs within the tolerance that a bundle states for it."""
    name = f"{graph.engine}/{graph.precision}"
    wanted = Outputs(golden.logit_N, golden.cam_Nhw, golden.novelty_N)
    answers = graph.run(golden.image_NHW, golden.metadata_NM)
    return agreement_gate(f"{name} golden answers (relative)", wanted, answers, TOLERANCES[name])


def require_bf16() -> str:
    """Name this processor's bf16 instructions; raises `NotMeasurable` where it has none, or OpenVINO is missing."""
    if (instructions := bf16_instructions()) is None:
        raise NotMeasurable("this processor has no bf16 instructions")
    if not openvino_is_installed():
        raise NotMeasurable("OpenVINO is not installed")
    return instructions


def openvino_is_installed() -> bool:
    """Tell whether the extra `openvino` is there, without importing it."""
    return find_spec("openvino") is not None


def judge_fast(
    graph: Path, golden: Golden, cost_in: Callable[[Callable[[Path], Graph]], Cost]
) -> tuple[Verdict, FastPrecision | None]:
    """Measure a graph in bf16 and hold it to its gates; raises `NotMeasurable`.

    Args:
        graph: the file.
        golden: its golden answers.
        cost_in: answers held-out images by what it is given opens, and compares.
    """
    instructions = require_bf16()
    print("measuring OpenVINO in bf16", flush=True)

    def open_bf16(path: Path) -> Graph:
        return OpenVinoGraph(path, OPENVINO, precision="bf16")

    cost = cost_in(open_bf16)
    verdict = judge("bf16", cost, (*cost_gates("bf16", cost), golden_gate(golden, open_bf16(graph))))
    if not verdict.holds or cost.auroc_change is None:
        return verdict, None
    return verdict, FastPrecision(
        engine=OPENVINO.name,
        precision="bf16",
        images=cost.images,
        auroc_change=cost.auroc_change,
        flips=cost.flips,
        instructions=instructions,
        tool=f"openvino {version('openvino')}",
    )


def judge_fast_bundle(bundle: Bundle, seen: Sequence[Seen], label_N: NDArray[np.int_]) -> tuple[Verdict, FastPrecision | None]:
    """Measure an exported bundle in bf16 on images that it had not learned from; raises `NotMeasurable`."""
    if not seen:
        raise NotMeasurable("the bundle learned from every one of these images: export its RUN anew on this processor")

    def answers(graph: Graph) -> Outputs:
        images = ((number, image_HW) for number, (image_HW, _) in enumerate(seen))
        return joined(outputs for _, outputs in predict(graph, images, (PLAIN,), lambda number: seen[number][1]))

    def cost_in(open_other: Callable[[Path], Graph]) -> Cost:
        exact, other = answers(OnnxGraph(bundle.graph_path)), answers(open_other(bundle.graph_path))
        return measure_cost(label_N, exact, other, bundle.manifest.readings[PLAIN_READING])

    return judge_fast(bundle.graph_path, bundle.golden, cost_in)


def joined(parts: Iterable[Outputs]) -> Outputs:
    """Put the answers to single images together."""
    held = list(parts)
    return Outputs(
        np.concatenate([part.logit_N for part in held]),
        np.concatenate([part.cam_Nhw for part in held]),
        np.concatenate([part.novelty_N for part in held]),
    )
