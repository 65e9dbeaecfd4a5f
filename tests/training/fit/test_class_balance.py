import numpy as np
import pytest

from training.fit.class_balance import class_weights, epoch_order

LABELS = np.array([1] * 30 + [0] * 10)


def test_the_sampler_draws_as_many_of_either_class_and_repeats_the_rare_one_evenly() -> None:
    order = epoch_order(LABELS, "sampler", np.random.default_rng(1))

    assert len(order) == 40
    assert LABELS[order].sum() == 20
    negative, times = np.unique(order[LABELS[order] == 0], return_counts=True)
    assert (len(negative), set(times.tolist())) == (10, {2})
    assert len(set(order[LABELS[order] == 1].tolist())) == 20


def test_the_other_treatments_visit_every_image_once() -> None:
    order = epoch_order(LABELS, "class-weights", np.random.default_rng(1))

    assert sorted(order.tolist()) == list(range(40))


def test_an_order_follows_its_generator() -> None:
    orders = [
        epoch_order(LABELS, "sampler", np.random.default_rng(seed)).tolist() for seed in (1, 1, 2)
    ]

    assert orders[0] == orders[1] != orders[2]


def test_class_weights_are_one_minus_the_share_of_the_class() -> None:
    assert class_weights(LABELS, "class-weights") == pytest.approx((1 - 10 / 40, 1 - 30 / 40))
    assert class_weights(LABELS, "sampler") == (1.0, 1.0)
