"""Calibration for images that differ from those it is fitted on.

A map that is fitted on clean images of one hospital is too sure at another.  So clean images and
corrupted copies of them are fitted together, and of the maps that fit them the least sure is kept:
a slope above 1, which makes answers surer than the network is, only as far as the copies' own
calibration error asks for it.

Shape suffixes: N images, K kinds of copies, the clean ones first.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cxr.interpret import Calibration
from cxr.metrics_schema import ShiftCalibration
from training.stats.calibrate import PlattFit, fit_platt, parts_by_person
from training.stats.metrics import Floats, Labels01, expected_calibration_error

MAX_ECE = 0.05
"""Calibration error over all copies up to which a map counts as one that fits."""

_SLOPE_STEP = 0.05
_INTERCEPT_REACH = 30.0
_HALVINGS = 60


@dataclass(frozen=True, slots=True)
class Copies:
    """Logits of the same images, as they are and changed, by what was done to them."""

    label_N: Labels01
    logit_N: dict[str, Floats]

    @property
    def label_KN(self) -> Labels01:
        """The labels, once for each kind of copy."""
        return np.tile(self.label_N, len(self.logit_N))

    @property
    def logit_KN(self) -> Floats:
        """All logits, in the order of `label_KN`."""
        return np.concatenate(list(self.logit_N.values()))

    def take(self, keep_N: Sequence[bool] | np.ndarray[Any, np.dtype[np.bool_]]) -> "Copies":
        """Return the copies of some images."""
        chosen = np.asarray(keep_N)
        kept = {name: logit_N[chosen] for name, logit_N in self.logit_N.items()}
        return Copies(self.label_N[chosen], kept)


@dataclass(frozen=True, slots=True)
class ShiftDescription:
    """How well a calibration fits clean images and corrupted copies."""

    clean: ShiftCalibration
    corrupted: ShiftCalibration | None
    ece_by_corruption: dict[str, float | None]
    """The error of each kind of copy alone."""


def fit_cautiously(copies: Copies) -> PlattFit:
    """Fit one map to all copies, and flatten it to slope 1 as far as it still fits.

    Intervals are those of as many images as there are, since copies are no further images.
    """
    fit = _of_single_images(fit_platt(copies.label_KN, copies.logit_KN), len(copies.logit_N))
    steepest = fit.calibration.slope
    if steepest <= 1.0 or fit.slope_ci95 is None:
        return fit
    for slope in np.arange(1.0, steepest, _SLOPE_STEP):
        flat = Calibration(slope=float(slope), intercept=_intercept(copies, float(slope)))
        error = pooled_ece(copies, flat)
        if error is not None and error <= MAX_ECE:
            return replace(
                fit,
                calibration=flat,
                slope_ci95=None,
                intercept_ci95=None,
                note=f"the flattest of slope 1 or more with an ECE of {MAX_ECE} or less over clean "
                f"and corrupted copies; the best fit has slope {steepest:.2f}",
            )
    return fit


def pooled_ece(copies: Copies, calibration: Calibration) -> float | None:
    """Return the calibration error over all copies together; None without images."""
    return expected_calibration_error(copies.label_KN, probabilities(calibration, copies.logit_KN))


def probabilities(calibration: Calibration, logit_N: Floats) -> Floats:
    """Return the probabilities of raw logits."""
    return np.array([calibration.probability(float(logit)) for logit in logit_N])


def describe_shift(copies: Copies, calibration: Calibration, clean: str) -> ShiftDescription:
    """Measure a calibration on clean images and on corrupted copies.

    `clean` names the images to which nothing was done.
    """
    others = {name: logit_N for name, logit_N in copies.logit_N.items() if name != clean}
    return ShiftDescription(
        clean=_describe(replace(copies, logit_N={clean: copies.logit_N[clean]}), calibration),
        corrupted=_describe(replace(copies, logit_N=others), calibration) if others else None,
        ece_by_corruption={
            name: pooled_ece(replace(copies, logit_N={name: logit_N}), calibration)
            for name, logit_N in others.items()
        },
    )


def cross_fitted_shift(
    copies: Copies, groups_N: Sequence[str], fit: Callable[[Copies], PlattFit]
) -> dict[str, Floats]:
    """Return the probability of each copy by a calibration that was fitted without its person."""
    found = {name: np.empty(len(copies.label_N)) for name in copies.logit_N}
    for held_N in parts_by_person(groups_N):
        calibration = fit(copies.take(~held_N)).calibration
        for name, logit_N in copies.logit_N.items():
            found[name][held_N] = probabilities(calibration, logit_N[held_N])
    return found


def _describe(copies: Copies, calibration: Calibration) -> ShiftCalibration:
    refit = fit_platt(copies.label_KN, copies.logit_KN)
    is_fitted = refit.slope_ci95 is not None
    return ShiftCalibration(
        ece=pooled_ece(copies, calibration),
        slope=refit.calibration.slope / calibration.slope if is_fitted else None,
    )


def _of_single_images(fit: PlattFit, kinds: int) -> PlattFit:
    """Widen a fit's intervals to what single images tell."""
    return replace(
        fit,
        slope_ci95=_widen(fit.calibration.slope, fit.slope_ci95, kinds),
        intercept_ci95=_widen(fit.calibration.intercept, fit.intercept_ci95, kinds),
    )


def _widen(value: float, interval: list[float] | None, kinds: int) -> list[float] | None:
    if interval is None:
        return None
    return [value + (bound - value) * math.sqrt(kinds) for bound in interval]


def _intercept(copies: Copies, slope: float) -> float:
    """Return the intercept at which as many are expected as there are, by halving an interval."""
    score_KN, positives = slope * copies.logit_KN, copies.label_KN.sum()
    low, high = -_INTERCEPT_REACH, _INTERCEPT_REACH
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        expected = np.exp(-np.logaddexp(0.0, -(score_KN + middle))).sum()
        low, high = (middle, high) if expected < positives else (low, middle)
    return (low + high) / 2
