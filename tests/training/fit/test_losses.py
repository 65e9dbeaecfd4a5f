import math

import pytest
import torch

from training.fit.losses import weighted_bce

LOGITS = torch.tensor([0.0, 2.0])
TARGETS = torch.tensor([0.0, 1.0])


def bce(logit: float, target: float) -> float:
    return math.log1p(math.exp(-logit)) * target + math.log1p(math.exp(logit)) * (1 - target)


def test_without_smoothing_and_weights_it_is_the_mean_cross_entropy() -> None:
    loss = weighted_bce(LOGITS, TARGETS, smoothing=0.0, weights=(1.0, 1.0))

    assert float(loss) == pytest.approx((bce(0, 0) + bce(2, 1)) / 2)


def test_smoothing_draws_targets_towards_one_half() -> None:
    loss = weighted_bce(LOGITS, TARGETS, smoothing=0.1, weights=(1.0, 1.0))

    assert float(loss) == pytest.approx((bce(0, 0.05) + bce(2, 0.95)) / 2)


def test_each_class_counts_by_its_weight() -> None:
    loss = weighted_bce(LOGITS, TARGETS, smoothing=0.0, weights=(0.75, 0.25))

    assert float(loss) == pytest.approx((0.75 * bce(0, 0) + 0.25 * bce(2, 1)) / 2)
