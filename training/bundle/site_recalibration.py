"""`evaluate --recalibrate`: fit a bundle's probabilities to one site, its network unchanged.

    predictions of the site's images -> two halves by person
    one half   -> calibration, thresholds
    the other  -> figures, before and after
    both       -> a new version of the bundle, with a graph file of its own hash

The shipped calibration holds for the images that it was fitted on.  At another site the same logit
may mean another probability: devices, patients and prevalence differ.

Shape suffixes: N images.
"""

import csv
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxr.bundle import Bundle, file_sha256, read_bundle, write_bundle
from cxr.interpret import PLAIN_PROFILE, DecisionProfile
from cxr.manifest import Manifest
from cxr.metrics_schema import (
    BundleMetrics,
    CrossFittedCalibration,
    Figures,
    ProfileFigures,
    Recalibration,
    TtaFigures,
)
from training.bundle.add_figures import write_texts
from training.bundle.manifest import graph_properties
from training.bundle.onnx_export import describe
from training.bundle.release_gates.bundle_gates import opening_gate
from training.bundle.release_gates.gate import require
from training.data import DataIndex, IndexRow
from training.data.index import read_table
from training.data.split import SplitError, split_folds
from training.errors import TrainingError
from training.evaluation.prediction import LabelledPrediction
from training.stats.calibrate import DEFAULT_OPERATING_POINT, operating_points
from training.stats.metrics import Floats, Labels01, measure
from training.stats.shift_calibration import Copies, describe_shift, fit_cautiously, probabilities

MIN_OF_CLASS = 20
"""Images with the finding, and as many without, in each half: of fewer nothing can be fitted."""

_SPLIT_SEED = 1
_CLEAN = "none"


class TooFewImages(TrainingError):
    """The site's images are too few, or the bundle knows them already; the message has counts."""


@dataclass(frozen=True, slots=True)
class _Half:
    """Predictions of half of the site's persons."""

    predictions: Sequence[LabelledPrediction]

    @property
    def label_N(self) -> Labels01:
        return np.array([each.label for each in self.predictions], dtype=np.int_)

    @property
    def groups_N(self) -> list[str]:
        return [each.person_group for each in self.predictions]

    def logit_N(self, profile: str) -> Floats:
        """Return raw logits: of the plain view, or of the TTA policy."""
        if profile == PLAIN_PROFILE:
            return np.array([each.plain_logit for each in self.predictions])
        return np.array([each.logit for each in self.predictions])

    def measured(self, profile: DecisionProfile, name: str) -> Figures:
        """Measure a decision profile on this half."""
        return measure(
            self.label_N,
            probabilities(profile.calibration, self.logit_N(name)),
            profile.thresholds,
            DEFAULT_OPERATING_POINT,
            groups_N=self.groups_N,
        )


@dataclass(frozen=True, slots=True)
class _Refitted:
    """A decision profile fitted on one half, and its figures on the other."""

    profile: DecisionProfile
    figures: ProfileFigures


def recalibrate_for_site(
    bundle_dir: Path, predictions: Sequence[LabelledPrediction], site: str, store: Path
) -> Path:
    """Write the next version of a bundle to `store`, recalibrated on a site's images.

    Args:
        bundle_dir: the bundle that made the predictions.
        predictions: of an evaluation with TTA; images that the bundle learned from, or was
            calibrated on, take no part.
        site: the name of the site, for the card.
        store: the store to write to.

    Returns:
        The folder of the new version.

    Raises:
        BundleError: the bundle can't be read, or the new one can't be served.
        TooFewImages: a half has fewer than 20 images of a class.
    """
    bundle = read_bundle(bundle_dir)
    fitted_on, held_out = _halves([each for each in predictions if not each.role])
    old = bundle.manifest
    version = _next_version(bundle_dir.parent, store / old.model)
    plain = _refit(fitted_on, held_out, PLAIN_PROFILE)
    tta = _refit(fitted_on, held_out, old.tta_policy)
    manifest = old.model_copy(
        update={
            "version": version,
            "readings": {PLAIN_PROFILE: plain.profile, old.tta_policy: tta.profile},
            "metrics": _metrics(old, site, (plain, tta), (fitted_on, held_out)),
            "calibration_prevalence": float(fitted_on.label_N.mean()),
            "fast": None,
        }
    )
    with write_bundle(store, old.model, version) as draft:
        _write(draft, bundle, manifest, [*fitted_on.predictions, *held_out.predictions])
        require([opening_gate(draft)])
    return store / old.model / str(version)


def _halves(predictions: Sequence[LabelledPrediction]) -> tuple[_Half, _Half]:
    """Divide predictions by person into two halves that are alike in label, age, sex and view."""
    rows = tuple(
        IndexRow(
            image_id=each.image_id,
            path=each.file,
            sha256=each.sha256,
            person_group=each.person_group,
            label=1 if each.label else 0,
            age_years=each.age_years,
        )
        for each in predictions
    )
    try:
        half_N = split_folds(DataIndex("site", rows), 2, _SPLIT_SEED)
    except SplitError as exc:
        raise TooFewImages("a class has images of fewer than two new persons") from exc
    halves = tuple(
        _Half([each for each, of in zip(predictions, half_N.tolist(), strict=True) if of == half])
        for half in (0, 1)
    )
    counts = [int((half.label_N == label).sum()) for half in halves for label in (0, 1)]
    if min(counts) < MIN_OF_CLASS:
        raise TooFewImages(
            f"it takes {MIN_OF_CLASS} new images of each class in each half, and the halves have "
            f"{counts[0]} and {counts[2]} without the finding, {counts[1]} and {counts[3]} with it"
        )
    return halves[0], halves[1]


def _refit(fitted_on: _Half, held_out: _Half, name: str) -> _Refitted:
    """Fit calibration and thresholds on one half, and measure them on the other."""
    copies = Copies(fitted_on.label_N, {_CLEAN: fitted_on.logit_N(name)})
    fit = fit_cautiously(copies)
    points = operating_points(fitted_on.label_N, fitted_on.logit_N(name))
    profile = DecisionProfile(
        calibration=fit.calibration,
        thresholds={key: fit.calibration.probability(each.logit) for key, each in points.items()},
    )
    figures = held_out.measured(profile, name)
    chosen = {
        key: point.changed(criterion=points[key].criterion, proven=points[key].proven)
        for key, point in figures.operating_points.items()
    }
    honest = CrossFittedCalibration(brier=figures.brier, ece=figures.ece)
    unseen = Copies(held_out.label_N, {_CLEAN: held_out.logit_N(name)})
    calibration = fit.figures(honest).changed(
        clean=describe_shift(unseen, fit.calibration, _CLEAN).clean
    )
    described = dict(figures) | {"operating_points": chosen, "calibration": calibration}
    return _Refitted(profile, ProfileFigures(**described))


def _metrics(
    old: Manifest, site: str, refitted: tuple[_Refitted, _Refitted], halves: tuple[_Half, _Half]
) -> BundleMetrics:
    plain, tta = (each.figures for each in refitted)
    fitted_on, held_out = halves
    before = held_out.measured(old.profile(), PLAIN_PROFILE)
    recalibration = Recalibration(
        site=site,
        from_version=old.version,
        n_fitted=len(fitted_on.predictions),
        n_fitted_positive=int(fitted_on.label_N.sum()),
        ece_before=before.ece,
        ece=plain.ece,
        brier_before=before.brier,
        brier=plain.brier,
    )
    basis = (
        f"{plain.n:,} images of {plain.n_person_groups:,} persons of `{site}`. Neither the network "
        f"nor the calibration had seen these persons: the calibration and the thresholds were "
        f"fitted on {len(fitted_on.predictions):,} images of other persons of the same site. The "
        f"network is that of version {old.version}; figures of corrupted copies, heat maps and "
        "novelty are that version's."
    )
    changed: dict[str, object] = dict(plain) | {
        "basis": basis,
        "tta": TtaFigures(**dict(tta), policy=old.tta_policy),
        "recalibration": recalibration,
        "precisions": None,
    }
    return old.metrics.changed(**changed)


def _next_version(*folders: Path) -> int:
    """Return a version that neither folder has."""
    taken = [
        int(path.name)
        for folder in folders
        if folder.is_dir()
        for path in folder.iterdir()
        if path.name.isdigit()
    ]
    return max(taken, default=0) + 1


def _write(
    draft: Path, bundle: Bundle, manifest: Manifest, used: Sequence[LabelledPrediction]
) -> None:
    """Write the bundle's files; of the graphs only the fp32 one, since others' limits were checked
    at the old thresholds.
    """
    graph = bundle.manifest.graphs[0]
    path = draft / graph.file
    shutil.copyfile(bundle.graph_path, path)
    shutil.copyfile(bundle.path / "golden.npz", draft / "golden.npz")
    describe(path, graph_properties(manifest))
    file = graph.model_copy(update={"sha256": file_sha256(path), "bytes": path.stat().st_size})
    _write_splits(draft / "splits.csv", bundle.path / "splits.csv", used)
    data = manifest.training_data.model_copy(
        update={"splits_sha256": file_sha256(draft / "splits.csv")}
    )
    write_texts(draft, manifest.model_copy(update={"graphs": (file,), "training_data": data}))


def _write_splits(path: Path, old: Path, used: Sequence[LabelledPrediction]) -> None:
    """Write splits.csv with the site's images, by hash alone: file names and persons stay there."""
    names = ["image_id", "sha256", "person_group", "label", "fold", "fitted", "novelty"]
    lines = read_table(old) if old.is_file() else []
    site = [
        {"sha256": each.sha256, "label": str(each.label), "fold": "-1", "fitted": "no"}
        for each in used
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows([*lines, *site])
