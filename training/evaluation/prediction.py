"""What a bundle answered of one labelled file: a line of predictions.csv."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["", "fitted", "calibrated"]
"""What a file was in making the bundle: nothing, learned from, or held-out and used for calibration
and thresholds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledPrediction:
    """One line of predictions.csv."""

    image_id: str
    path: str
    sha256: str
    person_group: str
    label: int
    role: Role
    """What this very file was to the shipped model."""
    logit: float
    """Raw; the mean over the views where TTA was used."""
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
