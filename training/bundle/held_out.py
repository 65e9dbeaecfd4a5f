"""Held-out predictions: each network of a run directory answers the images that it did not learn
from.

Calibration, thresholds, novelty limits and the bundle's own figures come from these predictions
alone.  Each fold's network runs as an exported graph, on the same tensors and TTA views as in
serving.

Shape suffixes: N held-out images, K views of one image, H and W input rows and columns, h and w map
rows and columns.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr.graph import OnnxGraph, Runtime
from cxr.interpret import PLAIN_PROFILE, DecisionProfile
from cxr.tta import POLICIES
from training.bundle.onnx_export import trace
from training.data.masks import map_masks
from training.evaluation.corruptions import STRESSES, corrupted
from training.evaluation.predict import predict
from training.fit.batches import open_cache
from training.fit.late_fusion import encode
from training.fit.run_dir import Run, load_network
from training.progress import progress_bar
from training.recipe.schema import Pool
from training.stats.calibrate import DEFAULT_OPERATING_POINT, operating_points
from training.stats.localisation import measure_localisation
from training.stats.metrics import Floats, Labels01, auroc, expected_calibration_error, measure
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
class HeldOut:
    """Predictions of held-out images, in the index's order within each fold."""

    position_N: NDArray[np.int64]
    """Rows of the run directory's index."""
    label_N: Labels01
    group_N: tuple[str, ...]
    view_logit_NK: Floats
    novelty_N: Floats
    cam_Nhw: NDArray[np.float32]
    """Of the plain view."""
    stressed_logit_N: dict[str, Floats]
    """Of the plain view of shifted copies (`training.evaluation.corruptions`), by what was done to
    them."""

    def logit(self, profile: str) -> Floats:
        """Return the logits of a reading: the plain view's, or the mean over the policy's views."""
        return (
            self.view_logit_NK[:, 0]
            if profile == PLAIN_PROFILE
            else self.view_logit_NK.mean(axis=1)
        )


def fold_graphs(run: Run, final_graph: Path, folder: Path) -> dict[int, Path]:
    """Write to `folder`, for each held-out fold, the graph of the network that did not learn from
    it.

    With one held-out fold the final network is that network, and `final_graph` is its graph.
    """
    if run.recipe.validation == "holdout":
        return {0: final_graph}
    graphs = {fold: folder / f"fold-{fold}.onnx" for fold in run.held_back_folds}
    for fold, path in graphs.items():
        network = load_network(run.fold_weights(fold), run.recipe)
        network.prepare_for_export()
        trace(network, run.recipe.size, path, num_facts=network.num_facts)
    return graphs


def predict_held_out(run: Run, graphs: Mapping[int, Path]) -> HeldOut:
    """Run every held-out fold through its graph of `fold_graphs`."""
    views = POLICIES[run.recipe.tta_policy]
    position_N = np.concatenate([run.held_back(fold) for fold in run.held_back_folds])
    images_NHW, facts = open_cache(run), facts_of(run)
    answers, stressed_logits = [], {name: list[float]() for name in STRESSES}
    with progress_bar(
        total=len(position_N) * (1 + len(STRESSES)), desc="held-out images", unit="image"
    ) as progress:
        for fold, path in graphs.items():
            graph = OnnxGraph(path, Runtime(threads=run.recipe.threads))
            for _, outputs in predict(
                graph, ((i, images_NHW[i]) for i in run.held_back(fold)), views, facts
            ):
                answers.append((outputs.logit_N, outputs.novelty_N[0], outputs.cam_Nhw[0]))
                progress.update()
            for name, logits in stressed_logits.items():
                copies = ((i, corrupted(name, images_NHW[i], int(i))) for i in run.held_back(fold))
                for _, outputs in predict(graph, copies, views[:1], facts):
                    logits.append(float(outputs.logit_N[0]))
                    progress.update()
    return HeldOut(
        position_N,
        run.index.label_N[position_N],
        tuple(run.index.rows[i].person_group for i in position_N),
        np.array([logit_K for logit_K, _, _ in answers], dtype=np.float64),
        np.array([novelty for _, novelty, _ in answers], dtype=np.float64),
        np.stack([cam_hw for _, _, cam_hw in answers]),
        {name: np.array(logits) for name, logits in stressed_logits.items()},
    )


def facts_of(run: Run) -> Callable[[np.int64], NDArray[np.float32]]:
    """Return a function from a position in the run directory's index to the metadata features of
    that image.
    """
    metadata_NM = encode(run.index.rows)
    return lambda position: metadata_NM[position]


def localise_held_out(run: Run, held_out: HeldOut, pool: Pool) -> dict[str, Any] | None:
    """Measure the maps of held-out positive images against their segmentation masks; None if the
    data have none.
    """
    mask_NHW = map_masks(run.path / "cache", len(run.index), run.recipe.size)
    if mask_NHW is None:
        return None
    drawn_N = (held_out.label_N == 1) & run.has_mask_N[held_out.position_N]
    return measure_localisation(
        held_out.cam_Nhw[drawn_N], np.asarray(mask_NHW[held_out.position_N[drawn_N]]), pool
    )


def read_off(held_out: HeldOut, profile: str) -> tuple[DecisionProfile, dict[str, Any]]:
    """Fit a reading's calibration and thresholds, and measure it; the figures are as in
    metrics.json.
    """
    logit_N = held_out.logit(profile)
    copies = Copies(held_out.label_N, {_CLEAN: logit_N} | held_out.stressed_logit_N)
    fit = fit_cautiously(copies)
    points = operating_points(copies.label_KN, copies.logit_KN, copies=len(copies.logit_N))
    thresholds = {name: fit.calibration.probability(point.logit) for name, point in points.items()}
    probability_N = probabilities(fit.calibration, logit_N)
    figures = measure(
        held_out.label_N,
        probability_N,
        thresholds,
        DEFAULT_OPERATING_POINT,
        groups_N=held_out.group_N,
    )
    for name, point in points.items():
        figures["operating_points"][name] |= {"criterion": point.criterion, "proven": point.proven}
    figures["calibration"] = (
        fit.as_dict()
        | describe_shift(copies, fit.calibration, _CLEAN)
        | {"cross_fitted": _without_own_person(copies, held_out.group_N)}
    )
    return DecisionProfile(calibration=fit.calibration, thresholds=thresholds), figures


def _without_own_person(copies: Copies, groups_N: Sequence[str]) -> dict[str, float | None]:
    """Measure a calibration that is fitted in the same way, each time without the image's
    person.
    """
    honest = cross_fitted_shift(copies, groups_N, fit_cautiously)
    corrupted = [probability_N for name, probability_N in honest.items() if name != _CLEAN]
    label_N = copies.label_N
    return {
        "brier": float(np.mean((honest[_CLEAN] - label_N) ** 2)),
        "ece": expected_calibration_error(label_N, honest[_CLEAN]),
        "ece_corrupted": expected_calibration_error(
            np.tile(label_N, len(corrupted)), np.concatenate(corrupted)
        ),
    }


def stress_figures(held_out: HeldOut) -> dict[str, Any]:
    """Measure robustness: `auroc`, the mean over the plain images and every corruption, and each
    alone.

    Recipes are chosen by this mean, not by the AUROC of the plain images. The rates are those at
    logit 0.
    """
    label_N, logits = (
        held_out.label_N,
        {_CLEAN: held_out.logit(PLAIN_PROFILE)} | held_out.stressed_logit_N,
    )
    aurocs = {name: auroc(label_N, logit_N) for name, logit_N in logits.items()}
    known = [value for value in aurocs.values() if value is not None]
    return {
        "auroc": float(np.mean(known)) if known else None,
        "stresses": {
            name: {
                "auroc": aurocs[name],
                "sensitivity": _share(logit_N[label_N == 1] >= 0),
                "specificity": _share(logit_N[label_N == 0] < 0),
            }
            for name, logit_N in logits.items()
        },
    }


def _share(true_N: NDArray[np.bool_]) -> float | None:
    return float(true_N.mean()) if len(true_N) else None


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
