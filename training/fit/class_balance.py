"""Treatments of a rare class: draw it as often as the other, weigh its loss, or fill it up
(`training.fit.augmented_copies`).
"""

import numpy as np
from numpy.typing import NDArray

from training.recipe.schema import Imbalance, Recipe


def epoch_order(
    label_N: NDArray[np.int64],
    treatment: Imbalance,
    rng: np.random.Generator,
    positives: float = 0.5,
) -> NDArray[np.int64]:
    """Return the order in which an epoch visits images, by position, as many as there are images.

    `sampler` draws half of them from either class, or `positives` of them from the positive one;
    the rarer class repeats, each of its images equally often (give or take one), and the other
    shows a random part.
    """
    if treatment != "sampler":
        return rng.permutation(len(label_N))
    half = int(len(label_N) * positives)
    negative = draw(np.flatnonzero(label_N == 0), len(label_N) - half, rng)
    positive = draw(np.flatnonzero(label_N == 1), half, rng)
    return rng.permutation(np.concatenate([negative, positive]))


def companion_order(
    label_N: NDArray[np.int64],
    measured_N: NDArray[np.bool_],
    recipe: Recipe,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Return the order of an epoch in which images that are not measured on keep others company.

    The others come as `epoch_order` has them.
    """
    own, others = np.flatnonzero(measured_N), np.flatnonzero(~measured_N)
    order = own[epoch_order(label_N[own], recipe.imbalance, rng)]
    count = companion_count(len(own), recipe)
    positives = round(recipe.pretraining.positives * count)
    drawn = [
        draw(others[label_N[others] == label], number, rng)
        for label, number in ((0, count - positives), (1, positives))
    ]
    return rng.permutation(np.concatenate([order, *drawn]))


def companion_count(own: int, recipe: Recipe) -> int:
    """Return how many companions an epoch draws beside its own images."""
    return round(own * recipe.companions / (1.0 - recipe.companions))


def class_weights(label_N: NDArray[np.int64], treatment: Imbalance) -> tuple[float, float]:
    """Return the loss weights of negatives and positives: `1 - n_c / N` for `class-weights`, else
    1.
    """
    if treatment != "class-weights":
        return 1.0, 1.0
    positive = float(label_N.mean())
    return positive, 1.0 - positive


def draw(positions: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw `count` of some positions, each equally often (within one)."""
    rounds = -(-count // len(positions))
    return np.concatenate([positions[:0], *(rng.permutation(positions) for _ in range(rounds))])[
        :count
    ]
