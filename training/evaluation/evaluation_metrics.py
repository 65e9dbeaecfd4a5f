"""Write the metrics of an evaluation from its predictions."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxr.bundle import Bundle
from cxr.evaluation_schema import (
    EvaluatedBundle,
    EvaluatedData,
    EvaluationMetrics,
    Picture,
    UnansweredFile,
)
from cxr.interpret import PLAIN_PROFILE, DecisionProfile
from cxr.metrics_schema import Figures
from training.data import DataIndex
from training.evaluation.prediction import LabelledPrediction
from training.evaluation.subgroups import subgroup_figures
from training.evaluation.tta_effect import effect_of_tta
from training.stats.metrics import measure


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What was evaluated: a bundle, on data, with or without TTA."""

    bundle: Bundle
    index: DataIndex
    data_dir: Path
    tta: bool


def summarise(
    evaluated: Evaluated,
    predictions: Sequence[LabelledPrediction],
    unreadable: Sequence[UnansweredFile],
    pictures: Sequence[Picture],
) -> EvaluationMetrics:
    """Return metrics.json: figures over all images and, if some were learned from, over the unseen
    ones.
    """
    bundle, index, manifest = evaluated.bundle, evaluated.index, evaluated.bundle.manifest
    roles = Counter(prediction.role for prediction in predictions)
    unseen = [prediction for prediction in predictions if prediction.is_unseen]
    profile = manifest.profile(tta=evaluated.tta)
    shown = unseen or predictions
    figures = measured(predictions, profile, manifest.default_operating_point)
    metrics = EvaluationMetrics(
        **dict(figures),
        basis=_basis(len(predictions), roles["fitted"], roles["calibrated"]),
        reading=manifest.tta_policy if evaluated.tta else PLAIN_PROFILE,
        bundle=EvaluatedBundle(
            model=manifest.model, version=manifest.version, sha256=bundle.sha256
        ),
        finding=manifest.finding,
        # the layout's name would say too little, the whole path too much
        data=EvaluatedData(
            name=evaluated.data_dir.resolve().name, images=len(index), sha256=index.fingerprint
        ),
        n_seen=roles["fitted"],
        n_calibrated=roles["calibrated"],
        n_novel=sum(prediction.is_novel for prediction in predictions),
        n_missing=len(index.missing),
        unreadable=list(unreadable),
        subgroups=subgroup_figures(shown, profile.thresholds[manifest.default_operating_point]),
        gallery=list(pictures),
    )
    if roles["fitted"]:
        apart = measured(unseen, profile, manifest.default_operating_point)
        metrics = metrics.changed(unseen=apart)
    if evaluated.tta:
        metrics = metrics.changed(tta_effect=effect_of_tta(manifest.tta_policy, shown))
    return metrics


def measured(
    predictions: Sequence[LabelledPrediction], profile: DecisionProfile, default_point: str
) -> Figures:
    """Measure predictions at a profile's thresholds."""
    return measure(
        np.array([prediction.label for prediction in predictions], dtype=np.int_),
        np.array([prediction.probability for prediction in predictions], dtype=np.float64),
        profile.thresholds,
        default_point,
        groups_N=[prediction.person_group for prediction in predictions],
    )


def _basis(images: int, seen: int, calibrated: int) -> str:
    text = f"{images:,} images, {f'{seen:,}' if seen else 'none'} of which the model learned from"
    if seen:
        text += " (the figures named unseen leave them out)"
    if calibrated:
        text += (
            f"; {calibrated:,} others are those that its calibration and thresholds were fitted on"
        )
    return text
