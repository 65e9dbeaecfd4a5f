"""Figures of a run directory's held-out predictions, and what is fitted on them.

Calibration, thresholds, novelty limits and the bundle's own figures come from these predictions
alone.

Shape suffixes: N held-out images, P positive images with a mask, Q negative images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxr.interpret import PLAIN_PROFILE, DecisionProfile
from cxr.metrics_schema import (
    CorruptionFigures,
    CrossFittedCalibration,
    Localisation,
    ProfileFigures,
    Robustness,
)
from training.bundle.held_out import HeldOut
from training.data.masks import map_masks
from training.fit.run_dir import Run
from training.recipe.schema import Pool
from training.stats.calibrate import DEFAULT_OPERATING_POINT, operating_points
from training.stats.localisation import detection_by_size, measure_localisation
from training.stats.metrics import auroc, expected_calibration_error, measure
from training.stats.shift_calibration import (
    Copies,
    cross_fitted_shift,
    describe_shift,
    fit_cautiously,
    probabilities,
)

_CLEAN = "none"
"""How figures call the images to which nothing was done."""


@dataclass(frozen=True, slots=True)
class FittedProfile:
    """A decision profile, and its figures on the predictions that it was fitted on."""

    profile: DecisionProfile
    figures: ProfileFigures


def fit_profile(held_out: HeldOut, name: str) -> FittedProfile:
    """Fit calibration and thresholds of the plain view, or of a TTA policy, and measure them."""
    logit_N = held_out.logit(name)
    copies = Copies(held_out.label_N, {_CLEAN: logit_N} | held_out.corrupted_logit_N)
    fit = fit_cautiously(copies)
    points = operating_points(copies.label_KN, copies.logit_KN, copies=len(copies.logit_N))
    thresholds = {key: fit.calibration.probability(point.logit) for key, point in points.items()}
    figures = measure(
        held_out.label_N,
        probabilities(fit.calibration, logit_N),
        thresholds,
        DEFAULT_OPERATING_POINT,
        groups_N=held_out.group_N,
    )
    chosen = {
        key: point.changed(criterion=points[key].criterion, proven=points[key].proven)
        for key, point in figures.operating_points.items()
    }
    shift = describe_shift(copies, fit.calibration, _CLEAN)
    calibration = fit.figures(_without_own_person(copies, held_out.group_N)).changed(
        clean=shift.clean, corrupted=shift.corrupted, ece_by_corruption=shift.ece_by_corruption
    )
    profile = DecisionProfile(calibration=fit.calibration, thresholds=thresholds)
    described = dict(figures) | {"operating_points": chosen, "calibration": calibration}
    return FittedProfile(profile, ProfileFigures(**described))


def localise_held_out(
    run: Run, held_out: HeldOut, pool: Pool, profile: DecisionProfile
) -> Localisation | None:
    """Measure the maps of held-out positive images against their segmentation masks, and detection
    by lesion size. Return None if the data have no masks.
    """
    mask_NHW = map_masks(run.path / "cache", len(run.index), run.recipe.size)
    if mask_NHW is None:
        return None
    drawn_N = (held_out.label_N == 1) & run.has_mask_N[held_out.position_N]
    mask_PHW = np.asarray(mask_NHW[held_out.position_N[drawn_N]])
    localisation = measure_localisation(held_out.cam_Nhw[drawn_N], mask_PHW, pool)
    probability_N = probabilities(profile.calibration, held_out.logit(PLAIN_PROFILE))
    return detection_by_size(
        localisation,
        mask_PHW,
        probability_N[drawn_N],
        probability_N[held_out.label_N == 0],
        profile.thresholds[DEFAULT_OPERATING_POINT],
    )


def robustness_figures(held_out: HeldOut) -> Robustness:
    """Measure robustness: the AUROC of each kind of corrupted copies, and their mean.

    Recipes are chosen by this mean, not by the AUROC of the plain images. The rates are those at
    logit 0.
    """
    label_N = held_out.label_N
    logits = {_CLEAN: held_out.logit(PLAIN_PROFILE)} | held_out.corrupted_logit_N
    figures = {
        name: CorruptionFigures(
            auroc=auroc(label_N, logit_N),
            sensitivity=_share(logit_N[label_N == 1] >= 0),
            specificity=_share(logit_N[label_N == 0] < 0),
        )
        for name, logit_N in logits.items()
    }
    known = [each.auroc for each in figures.values() if each.auroc is not None]
    return Robustness(auroc=float(np.mean(known)) if known else None, stresses=figures)


def basis(run: Run, held_out: HeldOut) -> str:
    """Return a sentence or two on what the held-out figures are."""
    images, persons = len(held_out.label_N), len(set(held_out.group_N))
    if run.recipe.validation == "holdout":
        origin = (
            f"one held-out fold of {run.recipe.folds} of a split by person: {images:,} images of "
            f"{persons:,} person groups, "
            "none of which the shipped model learned from"
        )
    else:
        origin = (
            f"{run.recipe.folds}-fold cross-validation by person: each of {images:,} images of "
            f"{persons:,} person groups "
            "predicted by a model that had not seen its person; the shipped model was then "
            "trained on all of them"
        )
    return (
        f"{origin}. Calibration and the operating points `youden`, `screen` and `rule_in` were "
        "fitted on these same predictions and on those of corrupted copies together, which "
        "flatters ECE, Brier score and the figures at those points a little; "
        "AUROC and `balanced` are "
        "untouched by it, and `calibration.cross_fitted` has ECE and Brier score without it."
    )


def novelty_basis(run: Run) -> str:
    """Return the origin of the novelty limits, as the end of a sentence that begins with the number
    of images.
    """
    if run.recipe.validation == "holdout":
        return "held-out from the model"
    return (
        f"each from the network of its fold, which had not seen it ({run.recipe.folds} networks "
        f"pooled, each with its own "
        "whitening; the shipped network learned from all of them, so its distances to new images "
        "may lie a little lower)"
    )


def _without_own_person(copies: Copies, groups_N: Sequence[str]) -> CrossFittedCalibration:
    """Measure a calibration that is fitted in the same way, each time without the image's
    person.
    """
    honest = cross_fitted_shift(copies, groups_N, fit_cautiously)
    corrupted = [probability_N for name, probability_N in honest.items() if name != _CLEAN]
    label_N = copies.label_N
    return CrossFittedCalibration(
        brier=float(np.mean((honest[_CLEAN] - label_N) ** 2)),
        ece=expected_calibration_error(label_N, honest[_CLEAN]),
        ece_corrupted=expected_calibration_error(
            np.tile(label_N, len(corrupted)), np.concatenate(corrupted)
        ),
    )


def _share(true_N: NDArray[np.bool_]) -> float | None:
    return float(true_N.mean()) if len(true_N) else None
