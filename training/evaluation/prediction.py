"""The prediction of one labelled file: a line of predictions.csv."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["", "fitted", "calibrated"]
"""A file's role in making the bundle: none, training, or held-out for calibration and
thresholds.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledPrediction:
    """One line of predictions.csv."""

    image_id: str
    path: str
    sha256: str
    person_group: str
    label: int
    role: Role
    """The file's role for the shipped model."""
    logit: float
    """Raw logit; with TTA the mean over the views."""
    plain_logit: float
    """Raw, of the plain view alone."""
    probability: float
    spread: float | None
    novelty: float
    is_novel: bool
    age_years: float | None
    sex: str | None
    view_position: str | None
    warnings: str
    """Codes, with spaces between."""
