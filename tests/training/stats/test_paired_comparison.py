import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from training.stats.metrics import auroc, bootstrap_interval
from training.stats.paired_comparison import MEASURES, mcnemar, resample

LABELS = np.array([0, 1] * 100)
PERSONS = [f"p{i // 4}" for i in range(200)]


def scores(separation: float, seed: int) -> NDArray[np.float64]:
    """One model's logits on plain and on two kinds of corrupted images [K, N]."""
    noise = np.random.default_rng(seed).normal(size=(3, 200))
    return separation * (2 * LABELS - 1) + noise


def test_the_measures_of_an_arm_are_those_of_its_models() -> None:
    models = np.stack([scores(1.0, seed) for seed in (1, 2)])

    found = resample(LABELS, models[None], PERSONS)

    for model, value_M in zip(models, found.value_ASM[0], strict=True):
        value = dict(zip(MEASURES, value_M.tolist(), strict=True))
        areas = [auroc(LABELS, logit_N) or 0.0 for logit_N in model]
        assert value["auroc"] == pytest.approx(areas[0])
        assert value["stressed_auroc"] == pytest.approx(np.mean(areas))
        assert value["accuracy"] == pytest.approx(((model[0] >= 0) == LABELS).mean())
        assert value["sensitivity"] == pytest.approx((model[0][LABELS == 1] >= 0).mean())
        assert value["specificity"] == pytest.approx((model[0][LABELS == 0] < 0).mean())


def test_with_one_seed_the_interval_is_the_bootstrap_by_person() -> None:
    model = scores(0.5, 1)

    found = resample(LABELS, model[None, None], PERSONS)

    assert found.mean(0, 0)[1] == pytest.approx(
        bootstrap_interval(LABELS, model[0], PERSONS), abs=0.01
    )


def test_pairing_finds_a_difference_that_single_intervals_hide() -> None:
    base = scores(0.5, 1)
    better = base + 0.15 * (2 * LABELS - 1)

    found = resample(LABELS, np.stack([better, base])[:, None], PERSONS)

    difference, (low, _) = found.difference(0, 1, 0)
    assert 0 < low < difference
    assert found.mean(0, 0)[1][0] < found.mean(1, 0)[0]  # their own intervals overlap by far


def test_seeds_that_disagree_widen_the_interval() -> None:
    steady = np.stack([scores(0.5, 1)] * 3)
    fickle = np.stack([scores(0.2, 1), scores(0.5, 1), scores(0.8, 1)])

    widths = [
        np.ptp(resample(LABELS, variants[None], PERSONS).mean(0, 0)[1])
        for variants in (steady, fickle)
    ]

    assert widths[1] > 1.3 * widths[0]


def test_an_arm_does_not_differ_from_itself() -> None:
    models = np.stack([scores(0.5, seed) for seed in (1, 2)])

    assert resample(LABELS, np.stack([models, models]), PERSONS).difference(0, 1, 1) == (
        0.0,
        [0.0, 0.0],
    )


def test_mcnemar_counts_who_alone_is_right_and_is_the_exact_test() -> None:
    one, other = scores(1.5, 1)[0], scores(0.4, 2)[0]

    only_one, only_other, p_value = mcnemar(LABELS, one, other)

    right, other_right = (one >= 0) == LABELS, (other >= 0) == LABELS
    assert (only_one, only_other) == ((right & ~other_right).sum(), (~right & other_right).sum())
    assert p_value == pytest.approx(stats.binomtest(only_one, only_one + only_other).pvalue)
    assert mcnemar(LABELS, one, one) == (0, 0, 1.0)
