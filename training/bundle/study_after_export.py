"""Measure the study of a bundle that was exported without one.

Its splits.csv says who is in which fold.

Shape suffix: N held-out images.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cxr.bundle import Bundle
from cxr.study_schema import Study
from training.bundle.checklist import statement_of
from training.bundle.study_figures import (
    HeldOutAnswers,
    error_groups,
    partitions,
    surest_errors,
)
from training.data import DataError, IndexRow, load_index
from training.data.index import read_table
from training.evaluation.labelled_images import roles
from training.evaluation.prediction import LabelledPrediction
from training.stats.shift_calibration import probabilities


def measure_study(
    bundle: Bundle,
    data_dir: Path,
    predictions: Sequence[LabelledPrediction],
    groups: Path | None = None,
) -> Study:
    """Return the partitions and errors of a bundle.

    Args:
        bundle: its network did not learn from a part of its images.
        data_dir: the folder that it was made from.
        predictions: its answers about that folder.
        groups: the table of persons that it was made with.

    Raises:
        DataError: the folder lacks images of the bundle, the bundle learned from all, or it does
            not say from which.
    """
    if not roles(bundle):
        raise DataError(f"{bundle.path} has no splits.csv, which says what it learned from")
    lines = read_table(bundle.path / "splits.csv")
    fold_of = {line["image_id"]: int(line["fold"]) for line in lines}
    index = load_index(data_dir, groups=groups, finding=bundle.manifest.finding)
    rows = [row for row in index.rows if row.image_id in fold_of]
    if len(rows) < len(lines):
        raise DataError(
            f"{data_dir} has {len(rows):,} of the {len(lines):,} images of {bundle.path}; a study "
            f"takes the folder that it was made from"
        )
    answers = _held_out(bundle, rows, predictions)
    if not answers.rows:
        raise DataError(f"{bundle.path} learned from all of its images, so it is exported anew")
    return Study(
        statement=statement_of(bundle.manifest),
        partitions=partitions(rows, [fold_of[row.image_id] for row in rows]),
        unreadable=len(index) - len(rows),
        without_file=len(index.missing),
        errors=error_groups(answers),
        surest_errors=surest_errors(answers),
    )


def _held_out(
    bundle: Bundle, rows: Sequence[IndexRow], predictions: Sequence[LabelledPrediction]
) -> HeldOutAnswers:
    """Pick the answers about images that the network had not learned from."""
    manifest = bundle.manifest
    profile = manifest.profile()
    logit_of = {each.image_id: each.plain_logit for each in predictions if each.is_unseen}
    unseen = [row for row in rows if row.image_id in logit_of]
    logit_N = np.array([logit_of[row.image_id] for row in unseen])
    return HeldOutAnswers(
        unseen,
        probabilities(profile.calibration, logit_N),
        profile.thresholds[manifest.default_operating_point],
    )
