"""One release gate: a condition that must hold before a bundle may ship, with its figure.

A gate has a name, a figure and a result. A failed gate stops the export or the conversion.

Shape suffixes: N images, h and w map rows and columns.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxr.errors import CxrError
from cxr.interpret import Outputs

TOLERANCES = {
    "onnxruntime-cpu/fp32": 1e-3,  # other vector units add in another order
    "onnxruntime-cpu/fp16": 5e-2,  # ten bits of a factor
    # eight-bit factors, on images unlike those that set the scales
    "onnxruntime-cpu/int8": 1.0,
    "onnxruntime-gpu/fp16": 5e-2,
    "onnxruntime-gpu/fp32": 2e-2,  # TF32 keeps ten bits of a factor
    "openvino-cpu/fp32": 1e-3,
    # seven bits of a factor; a ramp, whose local contrast is all rounding, shows 0.7
    "openvino-cpu/bf16": 1.0,
}
"""By engine and precision, how far an answer may lie from the golden one, relative to max(1,
|value|)."""


class ExportRefused(CxrError):
    """A gate failed: no bundle was written; the message names the gates."""


@dataclass(frozen=True, slots=True)
class ReleaseGate:
    """One condition that must hold, with the figure that shows it."""

    name: str
    figure: str
    holds: bool

    def __str__(self) -> str:
        return f"{'ok  ' if self.holds else 'FAIL'}  {self.name}: {self.figure}"


def failures(gates: Iterable[ReleaseGate]) -> list[ReleaseGate]:
    """Print every gate and return those that do not hold."""
    checked = list(gates)
    for gate in checked:
        print(f"  {gate}", flush=True)
    return [gate for gate in checked if not gate.holds]


def require(gates: Iterable[ReleaseGate]) -> None:
    """Print every gate; raises `ExportRefused` if one does not hold."""
    if failed := failures(gates):
        raise ExportRefused("; ".join(f"{gate.name}: {gate.figure}" for gate in failed))


def agreement_gate(name: str, wanted: Outputs, got: Outputs, limit: float) -> ReleaseGate:
    """Hold all outputs of another engine or precision to `limit`, relative to max(1, |value|)."""
    pairs = (
        (wanted.logit_N, got.logit_N),
        (wanted.cam_Nhw, got.cam_Nhw),
        (wanted.novelty_N, got.novelty_N),
    )
    return at_most(name, largest(relative(*pair) for pair in pairs), limit)


def relative(wanted: NDArray[np.floating], got: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return errors relative to max(1, |value|): a map's cells may be tens of logits, a distance
    hundreds.
    """
    return np.asarray(np.abs(wanted - got) / np.maximum(1.0, np.abs(wanted)))


def largest(errors: Iterable[NDArray[np.floating]]) -> float:
    """Return the largest of all errors; NaN if one of them is NaN."""
    return float(np.max([np.max(error) for error in errors]))  # numpy's max keeps a NaN


def at_most(name: str, figure: float, limit: float) -> ReleaseGate:
    """Hold a figure to a limit; NaN fails."""
    return ReleaseGate(name, f"{figure:.2g}, at most {limit:.0e}", bool(figure <= limit))
