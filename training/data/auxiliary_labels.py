"""Auxiliary labels: other findings, sex, view and age, as numbers to learn in pretraining.

Shape suffixes: N images, F auxiliary labels.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.data.index import IndexRow

FINDINGS = (
    "atelectasis", "cardiomegaly", "consolidation", "edema", "effusion", "emphysema", "fibrosis",
    "hernia", "infiltration", "mass", "nodule", "pleural_thickening", "pneumonia", "pneumothorax",
)  # fmt: skip
"""The 14 findings of ChestX-ray14 (Wang et al. 2017)."""

PERSON = ("male", "anteroposterior", "age")

_AGE_MEAN_YEARS = 48.0
_AGE_SPREAD_YEARS = 16.0


def encode_auxiliary_labels(rows: Sequence[IndexRow], finding: str) -> NDArray[np.float32]:
    """Return `auxiliary_NF`: findings, sex and view as 0 or 1, age about 0; NaN if unknown.

    The finding that a network learns anyway is left unknown.
    """
    return np.array([_encode(row, finding) for row in rows], dtype=np.float32)


def _encode(row: IndexRow, finding: str) -> list[float]:
    named = {name.strip().lower() for name in row.other_findings.split("|")}
    known = bool(row.other_findings)
    findings = [
        float(name in named) if known and name != finding else math.nan for name in FINDINGS
    ]
    sex = math.nan if row.sex is None else float(row.sex == "M")
    view = math.nan if row.view_position is None else float(row.view_position == "AP")
    years = math.nan if row.age_years is None else row.age_years
    return [*findings, sex, view, (years - _AGE_MEAN_YEARS) / _AGE_SPREAD_YEARS]
