"""Figures of one set of predictions with their bootstrap intervals; needs numpy alone.

`measure` returns the figures of `metrics.json`. A figure that the data don't allow (sensitivity
without a positive) is None.

Shape suffixes: N images, P positives, Q negatives, G person groups, B bootstrap draws.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cxr.metrics_schema import Figures, Interval, OperatingPointFigures

Floats = NDArray[np.float64]
Labels01 = NDArray[np.int_]

Z95 = 1.959963984540054
"""Two-sided 95 % of the normal distribution."""

_ECE_BINS = 15
_BOOTSTRAP_DRAWS = 2000
_BOOTSTRAP_SEED = 20261123


def measure(
    label_N: Labels01,
    probability_N: Floats,
    thresholds: Mapping[str, float],
    default_operating_point: str,
    *,
    groups_N: Sequence[str] | None = None,
) -> Figures:
    """Measure calibrated probabilities against labels (1 positive, 0 negative).

    Args:
        label_N: the label of each image.
        probability_N: calibrated, 0 to 1.
        thresholds: smallest positive probability, by operating point.
        default_operating_point: one of the thresholds' names.
        groups_N: the person of each image. If a person has several images, the AUROC's interval is
            bootstrapped by person.

    Returns:
        The figures of `metrics.json`.
    """
    interval, method = _auroc_interval(label_N, probability_N, groups_N)
    return Figures(
        n=len(label_N),
        n_positive=int(label_N.sum()),
        n_person_groups=len(set(groups_N)) if groups_N is not None else None,
        auroc=auroc(label_N, probability_N),
        auroc_ci95=interval,
        auroc_ci95_method=method,
        average_precision=average_precision(label_N, probability_N),
        brier=float(np.mean((probability_N - label_N) ** 2)) if len(label_N) else None,
        ece=expected_calibration_error(label_N, probability_N),
        operating_points={
            name: at_threshold(label_N, probability_N, threshold)
            for name, threshold in thresholds.items()
        },
        default_operating_point=default_operating_point,
    )


def auroc(label_N: Labels01, score_N: Floats) -> float | None:
    """Return the area under the ROC curve, ties counted half (Mann-Whitney); None with one
    class.
    """
    positives, negatives = int(label_N.sum()), int((1 - label_N).sum())
    if not positives or not negatives:
        return None
    rank_sum = _midranks(score_N)[label_N == 1].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def delong_interval(label_N: Labels01, score_N: Floats) -> Interval | None:
    """Return the AUROC's 95 % interval after DeLong (1988) by midranks (Sun and Xu 2014), on the
    logit scale.

    A perfect separation has no variance to estimate; there the interval is
    Wilson's for as many trials as the rarer class has images.
    """
    area = auroc(label_N, score_N)
    if area is None:
        return None
    if area in {0.0, 1.0}:
        trials = int(min(label_N.sum(), (1 - label_N).sum()))
        return wilson_interval(round(area * trials), trials)
    half = Z95 * math.sqrt(_delong_variance(label_N, score_N)) / (area * (1 - area))
    center = math.log(area / (1 - area))
    return [1 / (1 + math.exp(half - center)), 1 / (1 + math.exp(-half - center))]


def bootstrap_interval(
    label_N: Labels01, score_N: Floats, groups_N: Sequence[str]
) -> Interval | None:
    """Return the AUROC's 95 % interval by drawing persons with replacement, 2000 times from a fixed
    seed.
    """
    _, group_index_N = np.unique(np.asarray(groups_N), return_inverse=True)
    persons = int(group_index_N.max()) + 1
    rng = np.random.default_rng(_BOOTSTRAP_SEED)
    order_N = np.argsort(score_N, kind="stable")
    sorted_label_N, sorted_group_N = label_N[order_N], group_index_N[order_N]
    ties_N = np.unique(score_N[order_N], return_inverse=True)[1]
    area_B = np.array([
        weighted_auroc(sorted_label_N, ties_N, rng.multinomial(persons, np.full(persons,
        1 / persons))[sorted_group_N])
        for _ in range(_BOOTSTRAP_DRAWS)
    ])  # fmt: skip
    area_B = area_B[np.isfinite(area_B)]  # a draw of one class has no AUROC
    return [float(bound) for bound in np.quantile(area_B, [0.025, 0.975])] if len(area_B) else None


def average_precision(label_N: Labels01, score_N: Floats) -> float | None:
    """Return the mean precision over recall steps, tied scores taken together; None without a
    positive.
    """
    if not label_N.sum():
        return None
    recall_T, precision_T = precision_recall(label_N, score_N)
    return float(np.sum(np.diff(recall_T, prepend=0.0) * precision_T))


def precision_recall(label_N: Labels01, score_N: Floats) -> tuple[Floats, Floats]:
    """Return recall and precision at each distinct score from the highest down; needs a
    positive.
    """
    true_T, false_T = _cumulative_counts(label_N, score_N)
    return true_T / label_N.sum(), true_T / (true_T + false_T)


def roc_curve(label_N: Labels01, score_N: Floats) -> tuple[Floats, Floats]:
    """Return false and true positive rates from (0, 0) to (1, 1); needs both classes."""
    true_T, false_T = _cumulative_counts(label_N, score_N)
    return np.r_[0.0, false_T / (1 - label_N).sum()], np.r_[0.0, true_T / label_N.sum()]


def expected_calibration_error(label_N: Labels01, probability_N: Floats) -> float | None:
    """Return the mean gap between stated and observed frequency over 15 bins of equal mass."""
    if not len(label_N):
        return None
    gaps = [
        len(bin_) * abs(stated - observed)
        for bin_, stated, observed in _reliability(label_N, probability_N, _ECE_BINS)
    ]
    return float(sum(gaps) / len(label_N))


def reliability(
    label_N: Labels01, probability_N: Floats, bins: int = _ECE_BINS
) -> tuple[Floats, Floats, Labels01]:
    """Return the stated mean, the observed frequency and the size of each bin of equal mass."""
    rows = [
        (stated, observed, len(bin_))
        for bin_, stated, observed in _reliability(label_N, probability_N, bins)
    ]
    stated, observed, sizes = zip(*rows, strict=True) if rows else ((), (), ())
    return np.array(stated), np.array(observed), np.array(sizes, dtype=np.int_)


def at_threshold(
    label_N: Labels01, probability_N: Floats, threshold: float
) -> OperatingPointFigures:
    """Count and rate the decisions `probability >= threshold`, each rate with Wilson's interval."""
    called_N = probability_N >= threshold
    tp, fn = int(np.sum(called_N & (label_N == 1))), int(np.sum(~called_N & (label_N == 1)))
    fp, tn = int(np.sum(called_N & (label_N == 0))), int(np.sum(~called_N & (label_N == 0)))
    return OperatingPointFigures(
        threshold=float(threshold),
        accuracy=rate(tp + tn, len(label_N)),
        accuracy_ci95=wilson_interval(tp + tn, len(label_N)),
        sensitivity=rate(tp, tp + fn),
        sensitivity_ci95=wilson_interval(tp, tp + fn),
        specificity=rate(tn, tn + fp),
        specificity_ci95=wilson_interval(tn, tn + fp),
        ppv=rate(tp, tp + fp),
        ppv_ci95=wilson_interval(tp, tp + fp),
        npv=rate(tn, tn + fn),
        npv_ci95=wilson_interval(tn, tn + fn),
        confusion=[[tn, fp], [fn, tp]],
    )


def rate(hits: int, trials: int) -> float | None:
    """Return the share of hits; None without trials."""
    return hits / trials if trials else None


def wilson_interval(hits: int, trials: int, z: float = Z95) -> Interval | None:
    """Return the score interval of a proportion (Wilson 1927); None without trials."""
    if not trials:
        return None
    share = hits / trials
    center = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = (
        z
        / (1 + z * z / trials)
        * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    )
    return [max(0.0, center - half), min(1.0, center + half)]


def _auroc_interval(
    label_N: Labels01, score_N: Floats, groups_N: Sequence[str] | None
) -> tuple[Interval | None, str | None]:  # fmt: skip
    """Return the interval: bootstrapped by person if persons repeat and there is variance to
    resample, else DeLong's.
    """
    area = auroc(label_N, score_N)
    if area is None:
        return None, None
    if area in {0.0, 1.0}:
        return delong_interval(label_N, score_N), "wilson, for the rarer class (perfect separation)"
    if groups_N is not None and len(set(groups_N)) < len(label_N):
        return bootstrap_interval(
            label_N, score_N, groups_N
        ), f"bootstrap by person, {_BOOTSTRAP_DRAWS} draws"
    return delong_interval(label_N, score_N), "delong, on the logit scale"


def _midranks(score_N: Floats) -> Floats:
    """Return ranks from 1; ties share their mean rank."""
    _, inverse_N, counts = np.unique(score_N, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse_N], dtype=np.float64)


def _delong_variance(label_N: Labels01, score_N: Floats) -> float:
    """Sum the variances of both classes' placement values; a class of one image adds none."""
    positive, rank_N = label_N == 1, _midranks(score_N)
    placement_P = (rank_N[positive] - _midranks(score_N[positive])) / (~positive).sum()
    placement_Q = (rank_N[~positive] - _midranks(score_N[~positive])) / positive.sum()
    return sum(
        float(np.var(placement, ddof=1)) / len(placement)
        for placement in (placement_P, placement_Q)
        if len(placement) > 1
    )


def weighted_auroc(label_N: Labels01, ties_N: Labels01, weight_N: Labels01) -> float:
    """Return the AUROC of sorted images that count `weight` times each; NaN with one class."""
    positive_T = np.bincount(ties_N, weight_N * label_N)
    negative_T = np.bincount(ties_N, weight_N * (1 - label_N))
    below_T = np.cumsum(negative_T) - negative_T / 2
    pairs = positive_T.sum() * negative_T.sum()
    return float((positive_T * below_T).sum() / pairs) if pairs else math.nan


def _cumulative_counts(label_N: Labels01, score_N: Floats) -> tuple[Floats, Floats]:
    """Count true and false positives at each distinct score, from the highest down."""
    order_N = np.argsort(-score_N, kind="stable")
    last_T = np.r_[np.flatnonzero(np.diff(score_N[order_N])), len(score_N) - 1]
    true_T = np.cumsum(label_N[order_N])[last_T].astype(np.float64)
    return true_T, last_T + 1 - true_T


def _reliability(
    label_N: Labels01, probability_N: Floats, bins: int
) -> list[tuple[Labels01, float, float]]:
    """Cut the images into bins of equal mass: their indices, stated mean and observed frequency."""
    order_N = np.argsort(probability_N, kind="stable")
    parts = [part for part in np.array_split(order_N, bins) if len(part)]
    return [
        (part, float(probability_N[part].mean()), float(label_N[part].mean())) for part in parts
    ]
