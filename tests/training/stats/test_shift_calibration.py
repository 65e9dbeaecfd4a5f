"""A calibration that is fitted on clean and corrupted copies together, and is never too sure."""

import numpy as np
import pytest

from training.stats.calibrate import fit_platt
from training.stats.metrics import Floats, Labels01
from training.stats.shift_calibration import (
    MAX_ECE,
    Copies,
    cross_fitted_shift,
    describe_shift,
    fit_cautiously,
    pooled_ece,
)

COUNT = 4000


def made(slope: float, *, seed: int = 1) -> tuple[Labels01, Floats]:
    """Draw labels that come true with sigmoid(slope * logit)."""
    rng = np.random.default_rng(seed)
    logit_N = rng.normal(0.0, 2.0, COUNT)
    label_N = (rng.random(COUNT) < 1.0 / (1.0 + np.exp(-slope * logit_N))).astype(np.int64)
    return label_N, logit_N


def test_a_network_that_is_too_sure_of_corrupted_copies_is_made_less_sure_of_all() -> None:
    label_N, logit_N = made(1.0)
    noise_N = np.random.default_rng(2).normal(0.0, 3.0, COUNT)
    copies = Copies(label_N, {"none": logit_N, "noise": logit_N + noise_N})

    assert fit_cautiously(copies).calibration.slope < 0.7
    assert fit_platt(label_N, logit_N).calibration.slope == pytest.approx(1.0, abs=0.1)


def test_a_steep_map_is_flattened_as_far_as_it_fits() -> None:
    copies = Copies(*_named(made(1.3)))
    fit = fit_cautiously(copies)

    assert fit_platt(copies.label_KN, copies.logit_KN).calibration.slope > 1.2
    assert fit.calibration.slope == 1.0
    error = pooled_ece(copies, fit.calibration)
    assert error is not None
    assert error <= MAX_ECE
    assert fit.note is not None


def test_a_map_stays_steep_where_a_flat_one_would_not_fit() -> None:
    copies = Copies(*_named(made(4.0)))
    fit = fit_cautiously(copies)

    error = pooled_ece(copies, fit.calibration)
    assert error is not None
    assert fit.calibration.slope > 1.0
    assert error <= MAX_ECE


def test_copies_do_not_make_an_interval_narrower() -> None:
    label_N, logit_N = made(0.8)
    once = fit_cautiously(Copies(label_N, {"none": logit_N}))
    often = fit_cautiously(Copies(label_N, {str(kind): logit_N for kind in range(9)}))

    assert once.slope_ci95 == pytest.approx(often.slope_ci95, abs=0.01)


def test_figures_say_how_sure_the_answers_are_on_either() -> None:
    label_N, logit_N = made(1.0)
    copies = Copies(label_N, {"none": logit_N, "bent": 2.0 * logit_N})
    fit = fit_cautiously(copies)
    figures = describe_shift(copies, fit.calibration, "none")

    assert figures.corrupted is not None
    assert figures.clean.slope is not None
    assert figures.corrupted.slope is not None
    assert figures.clean.slope > 1.0 > figures.corrupted.slope
    assert figures.ece_by_corruption["bent"] == figures.corrupted.ece


def test_an_image_does_not_take_part_in_its_own_calibration() -> None:
    label_N, logit_N = made(1.0)
    groups_N = [str(number // 2) for number in range(COUNT)]
    before = cross_fitted_shift(Copies(*_named((label_N, logit_N))), groups_N, fit_cautiously)
    changed_N = label_N.copy()
    changed_N[:2] = 1 - changed_N[:2]
    after = cross_fitted_shift(Copies(*_named((changed_N, logit_N))), groups_N, fit_cautiously)

    np.testing.assert_allclose(before["none"][:2], after["none"][:2], rtol=0, atol=1e-12)


def _named(pair: tuple[Labels01, Floats]) -> tuple[Labels01, dict[str, Floats]]:
    return pair[0], {"none": pair[1]}
