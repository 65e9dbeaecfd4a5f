"""Measure the cost of another precision or engine on held-out images, and check it against limits.

Each image is answered by the network that did not learn from it: by its fp32 graph in ONNX Runtime,
and by the other precision or engine.

Shape suffixes: N images, C classes of them, h and w map rows and columns.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxr.interpret import DecisionProfile, Outputs
from cxr.manifest import MAX_FAST_AUROC_CHANGE, MAX_FAST_FLIPS
from training.bundle.release_gates.gate import ReleaseGate
from training.stats.metrics import Floats, Labels01, auroc

_MAX_PROBABILITY_CHANGE = 0.01
_MIN_CAM_CORRELATION = 0.95
_CALIBRATION_IMAGES = 256
_CALIBRATION_SEED = 0


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a precision against fp32 in ONNX Runtime, on held-out images."""

    images: int
    auroc_change: float | None
    """AUROC in this precision minus AUROC in fp32; None with one class."""
    flips: float
    """Largest share of images, over all operating points, whose label is another."""
    max_probability_change: float
    """Of the calibrated probability."""
    cam_correlation: float
    """Pearson's, between the two maps of an image; the mean over images."""


def measure_cost(
    label_N: Labels01, exact: Outputs, other: Outputs, profile: DecisionProfile
) -> Cost:
    """Compare two precisions on the same plain images, with one calibration and one set of
    thresholds.
    """
    exact_N, other_N = _probabilities(exact, profile), _probabilities(other, profile)
    areas = auroc(label_N, other_N), auroc(label_N, exact_N)
    flips = [
        np.mean((other_N >= threshold) != (exact_N >= threshold))
        for threshold in profile.thresholds.values()
    ]
    return Cost(
        images=len(label_N),
        auroc_change=areas[0] - areas[1] if areas[0] is not None and areas[1] is not None else None,
        flips=float(max(flips)),
        max_probability_change=float(np.max(np.abs(other_N - exact_N))),
        cam_correlation=_mean_correlation(exact.cam_Nhw, other.cam_Nhw),
    )


def cost_gates(name: str, cost: Cost) -> Iterator[ReleaseGate]:
    """Check a measured cost against the limits of a precision (`fp16`, `int8`, `bf16`). A missing
    figure fails.
    """
    change, flips = cost.auroc_change, cost.flips
    shown = "not measurable" if change is None else f"{change:+.4f}"
    small = change is not None and abs(change) <= MAX_FAST_AUROC_CHANGE
    yield ReleaseGate(
        f"{name} AUROC against fp32", f"{shown}, at most {MAX_FAST_AUROC_CHANGE} either way", small
    )
    yield ReleaseGate(
        f"{name} changed labels",
        f"{flips:.2%}, at most {MAX_FAST_FLIPS:.0%}",
        flips <= MAX_FAST_FLIPS,
    )
    if name == "fp16":
        moved = cost.max_probability_change
        yield ReleaseGate(
            f"{name} probability against fp32", f"{moved:.4f}, at most {_MAX_PROBABILITY_CHANGE}",
            moved <= _MAX_PROBABILITY_CHANGE,
        )  # fmt: skip
    if name == "int8":
        correlation = cost.cam_correlation
        yield ReleaseGate(
            f"{name} map's correlation with fp32's", f"{correlation:.3f}, at least "
                                                     f"{_MIN_CAM_CORRELATION}",
            correlation >= _MIN_CAM_CORRELATION,
        )  # fmt: skip


def calibration_positions(label_N: Labels01, count: int = _CALIBRATION_IMAGES) -> NDArray[np.int64]:
    """Draw up to `count` images to calibrate int8 on, each class in its share."""
    rng = np.random.default_rng(_CALIBRATION_SEED)
    share = min(1.0, count / len(label_N))
    drawn = []
    for label in np.unique(label_N):
        position_C = np.flatnonzero(label_N == label)
        drawn.append(rng.permutation(position_C)[: max(1, int(share * len(position_C)))])
    return np.sort(np.concatenate(drawn))


def _probabilities(outputs: Outputs, profile: DecisionProfile) -> Floats:
    return np.array([profile.calibration.probability(float(logit)) for logit in outputs.logit_N])


def _mean_correlation(one_Nhw: NDArray[np.float32], other_Nhw: NDArray[np.float32]) -> float:
    """Return the mean over images of Pearson's correlation of two maps; flat maps correlate only
    with themselves.
    """
    one_NC, other_NC = (
        map_Nhw.reshape(len(map_Nhw), -1).astype(np.float64) for map_Nhw in (one_Nhw, other_Nhw)
    )
    one_NC, other_NC = (
        map_NC - map_NC.mean(axis=1, keepdims=True) for map_NC in (one_NC, other_NC)
    )
    spread_N = np.linalg.norm(one_NC, axis=1) * np.linalg.norm(other_NC, axis=1)
    agreement_N = np.where(
        spread_N > 0, (one_NC * other_NC).sum(axis=1), np.all(one_NC == other_NC, axis=1)
    )
    return float(np.mean(agreement_N / np.where(spread_N > 0, spread_N, 1.0)))
