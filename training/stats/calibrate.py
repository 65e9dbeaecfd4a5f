"""What turns raw logits into probabilities, decisions and warnings.

All of it is fitted on predictions of images that the predicting network had
not learned from, never on the images it was fitted to.

Shape suffixes: N images, C cuts (places between neighbouring logits).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from cxr.interpret import Calibration, NoveltyLimits
from cxr.metrics_schema import CalibrationFigures, CrossFittedCalibration
from training.stats.metrics import Z95, Floats, Labels01, wilson_interval

DEFAULT_OPERATING_POINT = "balanced"

_REQUIRED_RATE = 0.95
"""What `screen` asks of the sensitivity, and `rule_in` of the specificity."""

_MIN_CLASS_FOR_PROOF = 100
"""Images of a class from which its rate is held to a confidence bound instead of its observed
value."""

_Z95_ONE_SIDED = 1.6448536269514722
_MIN_IMAGES_FOR_QUANTILES = 1000
_NEWTON_STEPS = 50
_CROSS_FIT_PARTS = 5
_CROSS_FIT_SEED = 0


@dataclass(frozen=True, slots=True)
class PlattFit:
    """A calibration, the standard errors of its two numbers, and the reason if it is the
    identity.
    """

    calibration: Calibration
    slope_ci95: list[float] | None
    intercept_ci95: list[float] | None
    note: str | None = None

    def figures(self, cross_fitted: CrossFittedCalibration) -> CalibrationFigures:
        """Return the fit as it stands in `metrics.json`."""
        return CalibrationFigures(
            slope=self.calibration.slope,
            slope_ci95=self.slope_ci95,
            intercept=self.calibration.intercept,
            intercept_ci95=self.intercept_ci95,
            note=self.note,
            cross_fitted=cross_fitted,
        )


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Smallest positive logit, the rule that chose it, and whether its promise is proven or only
    observed.
    """

    logit: float
    criterion: str
    proven: bool


def fit_platt(label_N: Labels01, logit_N: Floats) -> PlattFit:
    """Fit `sigmoid(slope * logit + intercept)` by Newton's method with Platt's smoothed targets
    (Platt 1999).

    The smoothing keeps the fit finite if the classes separate perfectly. With one class or one
    logit, or if higher logits mean fewer positives, nothing can be fitted: the identity is
    returned, with a note.
    """
    positives, negatives = int(label_N.sum()), int((1 - label_N).sum())
    if not positives or not negatives:
        return _identity("the held-out images are all of one class")
    if np.ptp(logit_N) == 0:
        return _identity("the held-out images all have the same logit")
    target_N = np.where(label_N == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    fitted = _newton(np.column_stack([logit_N, np.ones_like(logit_N)]), target_N)
    if fitted is None or fitted[0][0] <= 0:
        return _identity("higher logits did not mean more positives on the held-out images")
    (slope, intercept), (slope_error, intercept_error) = fitted
    return PlattFit(
        Calibration(slope=slope, intercept=intercept),
        [slope - Z95 * slope_error, slope + Z95 * slope_error],
        [intercept - Z95 * intercept_error, intercept + Z95 * intercept_error],
    )


def parts_by_person(groups_N: Sequence[str]) -> Iterator[NDArray[np.bool_]]:
    """Return which images each of five parts holds; a person's images lie in one part."""
    _, person_N = np.unique(np.asarray(groups_N), return_inverse=True)
    part_of_person = (
        np.random.default_rng(_CROSS_FIT_SEED).permutation(person_N.max() + 1) % _CROSS_FIT_PARTS
    )
    for part in range(_CROSS_FIT_PARTS):
        yield part_of_person[person_N] == part


def operating_points(
    label_N: Labels01, logit_N: Floats, *, copies: int = 1
) -> dict[str, OperatingPoint]:
    """Choose thresholds by four rules.

    `copies` is how often each image is among the logits, as it is or corrupted: what is proven is
    proven on single images.

    `balanced` does not look at the predictions at all: training batches hold both classes equally
    often, so logit 0 is the decision at equal priors. Youden's cut from nearly saturated
    predictions is too low on shifted data, so it is not the default.
    """
    points = {
        DEFAULT_OPERATING_POINT: OperatingPoint(
            0.0, "raw logit 0: equal priors, as in the training batches", True
        )
    }
    positives, negatives = int(label_N.sum()), int((1 - label_N).sum())
    if not positives or not negatives:
        lacking = OperatingPoint(
            0.0, "raw logit 0: the held-out images are all of one class", False
        )
        return points | {"youden": lacking, "screen": lacking, "rule_in": lacking}
    cut_C, hits_C, passes_C = _rates(label_N, logit_N)
    best_C = np.flatnonzero(
        np.isclose(hits_C + passes_C, (hits_C + passes_C).max(), rtol=0, atol=1e-12)
    )
    positives, negatives = positives // copies, negatives // copies
    sensitive_C, screen_rule = _meets(hits_C, positives, "sensitivity")
    specific_C, rule_in_rule = _meets(passes_C, negatives, "specificity")
    return points | {
        "youden": OperatingPoint(
            float(cut_C[best_C[len(best_C) // 2]]),
            "largest sensitivity + specificity, middle of its plateau",
            proven=True,
        ),
        "screen": OperatingPoint(float(cut_C[sensitive_C][-1]), screen_rule,
        positives >= _MIN_CLASS_FOR_PROOF),
        "rule_in": OperatingPoint(float(cut_C[specific_C][0]), rule_in_rule,
        negatives >= _MIN_CLASS_FOR_PROOF),
    }  # fmt: skip


def novelty_limits(novelty_N: Floats, basis: str) -> NoveltyLimits:
    """Find the distances that 99 % (warn) and 99.9 % (novel) of held-out images stay under.

    Under 1000 images the far tail was not seen, so a log-normal is fitted to
    the distances and its quantiles are taken.
    """
    if len(novelty_N) >= _MIN_IMAGES_FOR_QUANTILES:
        warn, novel = (float(limit) for limit in np.quantile(novelty_N, [0.99, 0.999]))
        how = "observed 99 % and 99.9 % quantiles"
    else:
        warn, novel = _log_normal_quantiles(novelty_N)
        how = "99 % and 99.9 % quantiles of a log-normal fitted to the distances"
    return NoveltyLimits(
        warn=warn, novel=novel, source=f"{how} of {len(novelty_N)} images, {basis}"
    )


def _identity(note: str) -> PlattFit:
    return PlattFit(Calibration(slope=1.0, intercept=0.0), None, None, f"identity: {note}")


def _newton(design_N2: Floats, target_N: Floats) -> tuple[list[float], list[float]] | None:
    """Maximise the Bernoulli likelihood. Return coefficients and standard errors, or None without
    convergence. A step that would not raise the likelihood is halved.
    """
    weights = np.zeros(2)
    for _ in range(_NEWTON_STEPS):
        probability_N = _sigmoid(design_N2 @ weights)
        gradient = design_N2.T @ (target_N - probability_N)
        hessian = (design_N2 * (probability_N * (1 - probability_N))[:, None]).T @ design_N2
        try:
            step = np.linalg.solve(hessian, gradient)
        except np.linalg.LinAlgError:
            return None
        if np.abs(step).max() < 1e-9:
            return weights.tolist(), np.sqrt(np.diag(np.linalg.inv(hessian))).tolist()
        while (
            _log_likelihood(design_N2 @ (weights + step), target_N)
            < _log_likelihood(design_N2 @ weights, target_N) - 1e-12
        ):
            step = step / 2
        weights = weights + step
    return None


def _log_likelihood(score_N: Floats, target_N: Floats) -> float:
    return float(np.sum(target_N * score_N - np.logaddexp(0, score_N)))


def _sigmoid(score_N: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0, -score_N)))


def _rates(label_N: Labels01, logit_N: Floats) -> tuple[Floats, Floats, Floats]:
    """Return every cut from the lowest up, with its sensitivity and specificity.

    A cut lies midway between neighbouring logits; one at either end calls all or none.
    """
    distinct = np.unique(logit_N)
    cut_C = np.r_[distinct[0] - 1, (distinct[:-1] + distinct[1:]) / 2, distinct[-1] + 1]
    positive_N, negative_N = np.sort(logit_N[label_N == 1]), np.sort(logit_N[label_N == 0])
    hits_C = np.asarray(1 - np.searchsorted(positive_N, cut_C) / len(positive_N))
    passes_C = np.asarray(np.searchsorted(negative_N, cut_C) / len(negative_N))
    return cut_C, hits_C, passes_C


def _meets(rate_C: Floats, trials: int, name: str) -> tuple[NDArray[np.bool_], str]:
    """Return which cuts keep a rate at 0.95. If the class is large enough, its lower bound must be
    0.95.
    """
    if trials < _MIN_CLASS_FOR_PROOF:
        return (
            rate_C >= _REQUIRED_RATE,
            f"observed {name} >= {_REQUIRED_RATE}; unproven, on {trials} images",
        )
    bound_C = np.array([_lower_bound(round(rate * trials), trials) for rate in rate_C])
    return bound_C >= _REQUIRED_RATE, f"lower 95 % bound of the {name} >= {_REQUIRED_RATE}"


def _lower_bound(hits: int, trials: int) -> float:
    interval = wilson_interval(hits, trials, _Z95_ONE_SIDED)
    return interval[0] if interval else 0.0


def _log_normal_quantiles(novelty_N: Floats) -> tuple[float, float]:
    log_N = np.log(np.maximum(novelty_N, np.finfo(np.float32).tiny))
    fitted = NormalDist(
        float(log_N.mean()), max(float(log_N.std(ddof=1)) if len(log_N) > 1 else 0.0, 1e-6)
    )
    return math.exp(fitted.inv_cdf(0.99)), math.exp(fitted.inv_cdf(0.999))
