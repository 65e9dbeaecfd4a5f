"""A closer look at an evaluation: by subgroup, at single radiographs, and with and without TTA."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cxr.bundle import Bundle
from cxr.graph import Graph
from cxr.interpret import PLAIN_PROFILE
from training.evaluation.gallery import draw_gallery
from training.evaluation.prediction import LabelledPrediction
from training.evaluation.subgroups import subgroup_figures
from training.evaluation.tta_effect import tta_effect


def look_closer(  # noqa: PLR0913 - what a picture needs
    bundle: Bundle,
    graph: Graph,
    data_dir: Path,
    out_dir: Path,
    predictions: Sequence[LabelledPrediction],
    *,
    tta: bool,
) -> dict[str, Any]:
    """Return `subgroups`, `gallery` and, after a run with TTA, `tta_effect`. They are of the unseen
    images, if there are any.
    """
    shown = [prediction for prediction in predictions if prediction.role != "fitted"] or predictions
    manifest = bundle.manifest
    profile = manifest.readings[manifest.tta_policy if tta else PLAIN_PROFILE]
    threshold = profile.thresholds[manifest.default_operating_point]
    pictures = draw_gallery(bundle, graph, data_dir, out_dir, shown, threshold=threshold)
    closer: dict[str, Any] = {
        "subgroups": subgroup_figures(shown, threshold),
        "gallery": [asdict(picture) for picture in pictures],
    }
    if tta:
        label_N = np.array([prediction.label for prediction in shown], dtype=np.int_)
        plain_N = np.array([prediction.plain_logit for prediction in shown])
        tta_N = np.array([prediction.logit for prediction in shown])
        groups_N = [prediction.person_group for prediction in shown]
        closer["tta_effect"] = tta_effect(manifest.tta_policy, label_N, plain_N, tta_N, groups_N)
    return closer
