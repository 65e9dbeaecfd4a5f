import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from training.stats.calibrate import fit_platt, novelty_limits, operating_points

Made = tuple[NDArray[np.int_], NDArray[np.float64]]


def made(images: int, slope: float = 0.6, intercept: float = -1.0, seed: int = 0) -> Made:
    """Logits whose labels follow sigmoid(slope * logit + intercept)."""
    rng = np.random.default_rng(seed)
    logit_N = rng.normal(1.0, 3.0, images)
    return (rng.random(images) < 1 / (1 + np.exp(-(slope * logit_N + intercept)))).astype(
        np.int_
    ), logit_N


def test_platt_recovers_the_slope_and_intercept_that_made_the_labels() -> None:
    fit = fit_platt(*made(50_000))
    assert fit.calibration.slope == pytest.approx(0.6, abs=0.02)
    assert fit.calibration.intercept == pytest.approx(-1.0, abs=0.05)
    assert fit.note is None


def test_platts_intervals_hold_the_truth_about_95_times_in_100() -> None:
    fits = [fit_platt(*made(300, seed=seed)) for seed in range(200)]
    held = [
        fit.slope_ci95 is not None and fit.slope_ci95[0] <= 0.6 <= fit.slope_ci95[1] for fit in fits
    ]
    assert 0.91 <= np.mean(held) <= 0.99


def test_platt_is_an_unpenalised_logistic_regression_on_many_images() -> None:
    label_N, logit_N = made(20_000)
    wanted = LogisticRegression(C=np.inf, tol=1e-10).fit(logit_N[:, None], label_N)
    fit = fit_platt(label_N, logit_N)
    assert fit.calibration.slope == pytest.approx(wanted.coef_[0, 0], abs=1e-3)
    assert fit.calibration.intercept == pytest.approx(wanted.intercept_[0], abs=1e-3)


def test_classes_that_separate_perfectly_give_a_finite_rising_calibration() -> None:
    fit = fit_platt(np.repeat([0, 1], 50), np.r_[np.linspace(-9, -1, 50), np.linspace(1, 9, 50)])
    assert 0 < fit.calibration.slope < 20
    assert fit.note is None


@pytest.mark.parametrize(
    ("label_N", "logit_N"),
    [
        (np.ones(20, dtype=np.int_), np.linspace(-1, 1, 20)),
        (np.repeat([1, 0], 10), np.linspace(-1, 1, 20)),
        (np.repeat([1, 0], 10), np.full(20, 0.3)),
    ],
    ids=["one class", "falling", "one logit"],
)
def test_nothing_to_fit_gives_the_identity_and_says_so(
    label_N: NDArray[np.int_], logit_N: NDArray[np.float64]
) -> None:
    fit = fit_platt(label_N, logit_N)
    assert (fit.calibration.slope, fit.calibration.intercept) == (1.0, 0.0)
    assert fit.note is not None
    assert fit.note.startswith("identity: ")


def test_balanced_is_logit_zero_whatever_the_predictions() -> None:
    assert operating_points(*made(400))["balanced"].logit == 0.0
    assert operating_points(*made(400, intercept=3.0))["balanced"].logit == 0.0


def test_youden_lies_in_the_middle_of_the_gap_between_separate_classes() -> None:
    points = operating_points(
        np.repeat([0, 1], 30), np.r_[np.linspace(-5, -1, 30), np.linspace(2, 5, 30)]
    )
    assert points["youden"].logit == pytest.approx(0.5)


def test_screen_is_the_highest_cut_whose_sensitivity_is_proven() -> None:
    label_N, logit_N = made(4000)
    cut = operating_points(label_N, logit_N)["screen"]
    sensitivity = np.mean(logit_N[label_N == 1] >= cut.logit)
    assert cut.proven
    assert 0.953 < sensitivity < 0.962  # the lower bound, not the rate, is at 0.95


def test_rule_in_is_the_lowest_cut_whose_specificity_is_proven() -> None:
    label_N, logit_N = made(4000)
    cut = operating_points(label_N, logit_N)["rule_in"]
    assert cut.proven
    assert 0.953 < np.mean(logit_N[label_N == 0] < cut.logit) < 0.962


def test_under_100_positives_screen_keeps_the_observed_rate_and_is_marked_unproven() -> None:
    label_N = np.repeat([0, 1], [200, 40])
    logit_N = np.r_[np.linspace(-4, 1, 200), np.linspace(-1, 4, 40)]
    cut = operating_points(label_N, logit_N)["screen"]
    assert np.mean(logit_N[label_N == 1] >= cut.logit) == 0.95
    assert not cut.proven
    assert "unproven, on 40 images" in cut.criterion


def test_one_class_still_gives_every_operating_point_unproven() -> None:
    points = operating_points(np.zeros(10, dtype=np.int_), np.linspace(-1, 1, 10))
    assert list(points) == ["balanced", "youden", "screen", "rule_in"]
    assert not points["screen"].proven


def test_novelty_limits_of_many_images_are_their_quantiles() -> None:
    limits = novelty_limits(np.arange(1, 10_001) / 100, "held-out")
    assert limits.warn == pytest.approx(99.0, abs=0.02)
    assert limits.novel == pytest.approx(99.9, abs=0.02)
    assert limits.source == "observed 99 % and 99.9 % quantiles of 10000 images, held-out"


def test_novelty_limits_of_few_images_come_from_a_fitted_tail() -> None:
    limits = novelty_limits(np.exp(np.random.default_rng(0).normal(2.0, 0.3, 400)), "held-out")
    assert limits.warn == pytest.approx(np.exp(2.0 + 0.3 * 2.326), rel=0.06)
    assert limits.novel == pytest.approx(np.exp(2.0 + 0.3 * 3.090), rel=0.08)
    assert "log-normal" in limits.source
