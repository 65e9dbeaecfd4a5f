"""`CXR_PRECISION=fast`: compare OpenVINO's bf16 with fp32, and allow it if all gates hold.

Only a processor with bf16 instructions can measure this: other processors emulate them.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from cxr.golden_answers import Golden
from cxr.graph import Graph, OpenVinoGraph, Runtime
from cxr.interpret import Outputs
from cxr.manifest import FastPrecision
from cxr.metrics_schema import PrecisionFigures
from training.bundle.precision_cost import Cost, cost_gates
from training.bundle.release_gates.gate import TOLERANCES, ReleaseGate, agreement_gate, failures
from training.errors import TrainingError
from training.hardware import bf16_instructions

OPENVINO = Runtime(engine="openvino")

MIN_IMAGES = 100
"""Of fewer, one changed label is more than the 1 % that is allowed."""


class NotMeasurable(TrainingError):
    """A precision can't be measured on this machine or on these images; the message says why."""


@dataclass(frozen=True, slots=True)
class Bf16Decision:
    """The measured cost of another precision, and the gates that failed."""

    cost: Cost | None
    failed: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether it may go into the bundle."""
        return not self.failed

    def figures(self) -> PrecisionFigures:
        """Return the decision as it stands in `metrics.json`."""
        measured = asdict(self.cost) if self.cost else {}
        return PrecisionFigures(**measured, allowed=self.holds, refused_for=list(self.failed))


def judge(name: str, cost: Cost, gates: Iterable[ReleaseGate]) -> Bf16Decision:
    """Print the gates of a measured precision and return the decision."""
    failed = failures(gates)
    if failed:
        print(
            f"  {name} REFUSED: {'; '.join(f'{gate.name}: {gate.figure}' for gate in failed)}",
            flush=True,
        )
    return Bf16Decision(cost, tuple(f"{gate.name}: {gate.figure}" for gate in failed))


def golden_gate(golden: Golden, graph: Graph) -> ReleaseGate:
    """Compare a graph's answers to the golden inputs within the tolerance of its precision."""
    name = f"{graph.engine}/{graph.precision}"
    wanted = Outputs(golden.logit_N, golden.cam_Nhw, golden.novelty_N)
    answers = graph.run(golden.image_NHW, golden.metadata_NM)
    return agreement_gate(f"{name} golden answers (relative)", wanted, answers, TOLERANCES[name])


def require_bf16() -> str:
    """Return this processor's bf16 instructions. Raise `NotMeasurable` if it has none, or if
    OpenVINO is missing.
    """
    if (instructions := bf16_instructions()) is None:
        raise NotMeasurable("this processor has no bf16 instructions")
    if not openvino_is_installed():
        raise NotMeasurable("OpenVINO is not installed")
    return instructions


def openvino_is_installed() -> bool:
    """Return whether the extra `openvino` is installed, without importing it."""
    return find_spec("openvino") is not None


def judge_fast(
    graph: Path, golden: Golden, cost_in: Callable[[Callable[[Path], Graph]], Cost]
) -> tuple[Bf16Decision, FastPrecision | None]:
    """Measure a graph in bf16 and check its gates. Raise `NotMeasurable` if this processor can't.

    Args:
        graph: the file.
        golden: its golden answers.
        cost_in: answers held-out images by graphs that the function given to it opens, and
            compares.
    """
    instructions = require_bf16()
    print("measuring OpenVINO in bf16", flush=True)

    def open_bf16(path: Path) -> Graph:
        return OpenVinoGraph(path, OPENVINO, precision="bf16")

    cost = cost_in(open_bf16)
    verdict = judge(
        "bf16", cost, (*cost_gates("bf16", cost), golden_gate(golden, open_bf16(graph)))
    )
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


def joined(parts: Iterable[Outputs]) -> Outputs:
    """Concatenate the outputs of single images."""
    held = list(parts)
    return Outputs(
        np.concatenate([part.logit_N for part in held]),
        np.concatenate([part.cam_Nhw for part in held]),
        np.concatenate([part.novelty_N for part in held]),
    )
