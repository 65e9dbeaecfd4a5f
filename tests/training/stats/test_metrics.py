import json

import numpy as np
import pytest
from sklearn import metrics as reference

from training.stats.metrics import (
    at_threshold,
    auroc,
    average_precision,
    bootstrap_interval,
    delong_interval,
    expected_calibration_error,
    measure,
    roc_curve,
    wilson_interval,
)

LABEL_N = np.random.default_rng(0).integers(0, 2, 300)
SCORE_N = np.round(
    1 / (1 + np.exp(-(LABEL_N + np.random.default_rng(1).normal(0, 1.2, 300)))), 2
)  # with ties


def test_the_auroc_is_scikit_learns_also_with_ties() -> None:
    assert len(np.unique(SCORE_N)) < len(SCORE_N)
    assert auroc(LABEL_N, SCORE_N) == pytest.approx(
        reference.roc_auc_score(LABEL_N, SCORE_N), abs=1e-12
    )


def test_the_average_precision_is_scikit_learns() -> None:
    wanted = reference.average_precision_score(LABEL_N, SCORE_N)
    assert average_precision(LABEL_N, SCORE_N) == pytest.approx(wanted, abs=1e-12)


def test_the_roc_curve_encloses_the_auroc() -> None:
    false_rate, true_rate = roc_curve(LABEL_N, SCORE_N)
    assert (false_rate[0], true_rate[0], false_rate[-1], true_rate[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(true_rate, false_rate) == pytest.approx(auroc(LABEL_N, SCORE_N), abs=1e-12)


def test_delong_covers_the_true_auroc_about_95_times_in_100() -> None:
    rng = np.random.default_rng(2)
    truth, covered = 0.7602, 0  # of normals one standard deviation apart: Phi(1 / sqrt(2))
    for _ in range(400):
        label_N = np.repeat([0, 1], [60, 30])
        low, high = delong_interval(label_N, rng.normal(label_N, 1.0)) or (1, 0)
        covered += low <= truth <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_delong_and_the_bootstrap_agree_where_every_image_is_another_person() -> None:
    delong = delong_interval(LABEL_N, SCORE_N)
    bootstrap = bootstrap_interval(LABEL_N, SCORE_N, [str(i) for i in range(300)])
    assert delong == pytest.approx(bootstrap, abs=0.01)


def test_four_copies_of_an_image_do_not_narrow_the_interval_of_the_bootstrap_by_person() -> None:
    persons = [str(i) for i in range(300)]
    once = bootstrap_interval(LABEL_N, SCORE_N, persons)
    copied = bootstrap_interval(np.tile(LABEL_N, 4), np.tile(SCORE_N, 4), persons * 4)
    assert copied == pytest.approx(once, abs=1e-12)


def test_a_perfect_separation_is_not_said_to_be_certain() -> None:
    low, high = delong_interval(np.array([0, 0, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.8, 0.9])) or (
        1,
        0,
    )
    assert low < 0.5
    assert high == 1.0


def test_wilsons_interval_is_newcombes_example() -> None:
    assert wilson_interval(81, 263) == pytest.approx(
        [0.2553, 0.3662], abs=5e-5
    )  # Newcombe 1998, table 1
    assert wilson_interval(0, 0) is None


def test_the_calibration_error_is_zero_for_frequencies_that_come_true_and_the_gap_for_others() -> (
    None
):
    label_N = np.tile([0, 1], 450)
    assert expected_calibration_error(label_N, np.full(900, 0.5)) == pytest.approx(0.0, abs=1e-12)
    assert expected_calibration_error(label_N, np.full(900, 0.8)) == pytest.approx(0.3, abs=1e-12)


def test_the_confusion_matrix_has_true_negatives_first() -> None:
    point = at_threshold(
        np.array([0, 0, 0, 1, 1, 1, 1]), np.array([0.1, 0.2, 0.5, 0.4, 0.5, 0.9, 0.9]), 0.5
    )
    assert point.confusion == [[2, 1], [1, 3]]
    assert point.sensitivity == 3 / 4
    assert point.specificity == 2 / 3
    assert point.ppv == 3 / 4
    assert point.npv == 2 / 3
    assert point.accuracy == 5 / 7


def test_a_measurement_has_the_keys_of_the_contract_and_is_json() -> None:
    figures = measure(
        LABEL_N,
        SCORE_N,
        {"balanced": 0.5, "screen": 0.1},
        "balanced",
        groups_N=[str(i // 2) for i in range(300)],
    )
    written = json.loads(figures.text())
    assert written == figures.as_json()
    contract = {
        "n",
        "n_positive",
        "auroc",
        "auroc_ci95",
        "average_precision",
        "brier",
        "ece",
        "operating_points",
    }
    assert contract | {"default_operating_point"} <= written.keys()
    rates = {
        "threshold",
        "accuracy",
        "accuracy_ci95",
        "sensitivity",
        "specificity",
        "ppv",
        "npv",
        "confusion",
    }
    assert rates <= written["operating_points"]["screen"].keys()
    assert figures.brier == pytest.approx(reference.brier_score_loss(LABEL_N, SCORE_N))
    assert written["auroc_ci95_method"].startswith("bootstrap by person")


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_gives_none_for_what_needs_both(label: int) -> None:
    figures = measure(np.full(5, label), np.linspace(0, 1, 5), {"balanced": 0.5}, "balanced")
    assert figures.auroc is None
    assert figures.auroc_ci95 is None
    assert (figures.average_precision is None) == (label == 0)
    point = figures.operating_points["balanced"]
    assert (point.specificity if label else point.sensitivity) is None


def test_no_images_at_all_give_none_and_no_crash() -> None:
    figures = measure(
        np.array([], dtype=int), np.array([]), {"balanced": 0.5}, "balanced", groups_N=[]
    )
    assert figures.n == 0
    assert figures.brier is None
    assert figures.ece is None
