"""The prediction of one labelled file: a line of predictions.csv."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, cast

from training.data.index import DataError, read_table

Role = Literal["", "fitted", "calibrated"]
"""A file's role in making the bundle: none, training, or calibration and thresholds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledPrediction:
    """One line of predictions.csv."""

    file: str
    """Path relative to the data folder."""
    person_group: str
    label: int
    logit: float
    """Raw logit; with TTA the mean over the views."""
    probability: float
    image_id: str
    sha256: str
    role: Role
    """The file's role for the shipped model."""
    plain_logit: float
    """Raw, of the plain view alone."""
    spread: float | None
    novelty: float
    is_novel: bool
    age_years: float | None
    sex: str | None
    view_position: str | None
    warnings: str
    """Codes, with spaces between."""

    @property
    def is_unseen(self) -> bool:
        """Whether the shipped model did not learn from the file."""
        return self.role != "fitted"


def write_predictions(path: Path, predictions: Iterable[LabelledPrediction]) -> None:
    """Write predictions.csv; what is None stays empty."""
    names = [item.name for item in fields(LabelledPrediction)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {key: "" if value is None else value for key, value in asdict(item).items()}
            for item in predictions
        )


def read_predictions(path: Path) -> list[LabelledPrediction]:
    """Read predictions.csv; raises `DataError` if a column is missing or a value is no number."""
    try:
        return [_prediction(line) for line in read_table(path)]
    except (KeyError, ValueError) as exc:
        raise DataError(f"{path} is no predictions.csv of this version: {exc}") from exc


def _prediction(line: Mapping[str, str]) -> LabelledPrediction:
    return LabelledPrediction(
        file=line["file"],
        person_group=line["person_group"],
        label=int(line["label"]),
        logit=float(line["logit"]),
        probability=float(line["probability"]),
        image_id=line["image_id"],
        sha256=line["sha256"],
        role=cast("Role", line["role"]),
        plain_logit=float(line["plain_logit"]),
        spread=_number(line["spread"]),
        novelty=float(line["novelty"]),
        is_novel=line["is_novel"] == str(True),
        age_years=_number(line["age_years"]),
        sex=line["sex"] or None,
        view_position=line["view_position"] or None,
        warnings=line["warnings"],
    )


def _number(text: str) -> float | None:
    return float(text) if text else None
