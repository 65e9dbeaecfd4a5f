"""Paired comparison of variants on the same images, persons and seeds.

Shape suffixes: A variants, S seeds, K readings (the plain images first, then each corruption), N
images, G person groups, B bootstrap draws, M measures, T distinct scores.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from training.stats.metrics import Floats, Labels01, weighted_auroc

MEASURES = ("auroc", "stressed_auroc", "accuracy", "sensitivity", "specificity")
"""`stressed_auroc` is the mean over the plain images and every corruption; rates are those at logit
0."""

_DRAWS = 1000
_SEED = 20261123


@dataclass(frozen=True, slots=True)
class Resampled:
    """Measures of every variant and seed, and what they might have been with other persons and
    seeds.
    """

    value_ASM: Floats
    draw_BAM: Floats
    """Means over drawn seeds, the same seeds and persons for every variant."""

    def mean(self, variant: int, measure: int) -> tuple[float, list[float]]:
        """Return a variant's mean over its seeds, and its 95 % interval."""
        return float(self.value_ASM[variant, :, measure].mean()), _interval(
            self.draw_BAM[:, variant, measure]
        )

    def difference(self, one: int, other: int, measure: int) -> tuple[float, list[float]]:
        """Return by how much one variant exceeds another in the mean over seeds, and the paired 95
        % interval.
        """
        means_A = self.value_ASM[:, :, measure].mean(axis=1)
        return float(means_A[one] - means_A[other]), _interval(
            self.draw_BAM[:, one, measure] - self.draw_BAM[:, other, measure]
        )


def resample(label_N: Labels01, logit_ASKN: Floats, groups_N: Sequence[str]) -> Resampled:
    """Measure all variants, then draw persons and seeds with replacement, 1000 times from a fixed
    seed.
    """
    variants, seeds = logit_ASKN.shape[:2]
    models = [
        _measurer(label_N, logit_KN) for logit_KN in logit_ASKN.reshape(-1, *logit_ASKN.shape[2:])
    ]

    def measured(weight_N: Labels01) -> Floats:
        return np.array([model(weight_N) for model in models]).reshape(
            variants, seeds, len(MEASURES)
        )

    group_N = np.unique(np.asarray(groups_N), return_inverse=True)[1]
    persons = int(group_N.max()) + 1
    rng = np.random.default_rng(_SEED)
    draws = []
    for _ in range(_DRAWS):
        weight_N = rng.multinomial(persons, np.full(persons, 1 / persons))[group_N]
        draws.append(measured(weight_N)[:, rng.integers(seeds, size=seeds)].mean(axis=1))
    return Resampled(measured(np.ones(len(label_N), dtype=np.int_)), np.array(draws))


def mcnemar(label_N: Labels01, one_N: Floats, other_N: Floats) -> tuple[int, int, float]:
    """Compare the decisions of two models at logit 0: who alone is right how often, and the exact
    p-value (McNemar 1947).
    """
    right_N, other_right_N = (one_N >= 0) == (label_N == 1), (other_N >= 0) == (label_N == 1)
    only_one, only_other = (
        int((right_N & ~other_right_N).sum()),
        int((~right_N & other_right_N).sum()),
    )
    trials = only_one + only_other
    tail = sum(math.comb(trials, hits) for hits in range(min(only_one, only_other) + 1))
    return only_one, only_other, min(1.0, 2 * tail / 2**trials)


def _measurer(label_N: Labels01, logit_KN: Floats) -> Callable[[Labels01], list[float]]:
    """Prepare one model's measures as a function of how often each image counts."""
    order_KN = np.argsort(logit_KN, axis=1, kind="stable")
    ties_KN = [
        np.unique(logit_N, return_inverse=True)[1][order_N]
        for logit_N, order_N in zip(logit_KN, order_KN, strict=True)
    ]
    right_N = (logit_KN[0] >= 0) == (label_N == 1)

    def measure(weight_N: Labels01) -> list[float]:
        pairs = zip(order_KN, ties_KN, strict=True)
        auroc_K = [
            weighted_auroc(label_N[order_N], ties_N, weight_N[order_N]) for order_N, ties_N in pairs
        ]
        counted = (weight_N, weight_N * label_N, weight_N * (1 - label_N))
        rates = [
            float((weights * right_N).sum() / weights.sum()) if weights.any() else math.nan
            for weights in counted
        ]
        return [auroc_K[0], float(np.mean(auroc_K)), *rates]

    return measure


def _interval(value_B: Floats) -> list[float]:
    return [float(bound) for bound in np.nanquantile(value_B, [0.025, 0.975])]
