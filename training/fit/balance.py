"""Treatments of a rare class: draw it as often as the other, weigh its loss, or fill it up
(`training.fit.generate`).
"""

import numpy as np
from numpy.typing import NDArray

from training.recipe.schema import Imbalance


def epoch_order(
    label_N: NDArray[np.int64], treatment: Imbalance, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the order in which an epoch visits images, by position, as many as there are images.

    `sampler` draws half of them from either class; images of the rarer class repeat equally often
    (within one), and a random part of the other class is drawn.
    """
    if treatment != "sampler":
        return rng.permutation(len(label_N))
    half = len(label_N) // 2
    negative = draw(np.flatnonzero(label_N == 0), len(label_N) - half, rng)
    positive = draw(np.flatnonzero(label_N == 1), half, rng)
    return rng.permutation(np.concatenate([negative, positive]))


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
