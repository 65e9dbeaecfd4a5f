"""Measure who a model's data are, and where its held-out answers are wrong.

Export has a run directory; a bundle of its own has splits.csv and the data folder.

Shape suffix: N held-out images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxr.interpret import PLAIN_PROFILE, DecisionProfile
from cxr.study_schema import DataStatement, ErrorGroup, PartitionFigures, Study, SurestError
from training.bundle.held_out import HeldOut
from training.data.index import IndexRow
from training.fit.run_dir import Run
from training.stats.calibrate import DEFAULT_OPERATING_POINT
from training.stats.metrics import Floats
from training.stats.shift_calibration import probabilities

_SUREST = 5
"""So many wrong answers are named."""

_ADULT_YEARS = 18
_OLD_YEARS = 65
_LEAST = 1e-12
"""Probabilities count as at least so far from 0 and 1."""


@dataclass(frozen=True, slots=True)
class HeldOutAnswers:
    """Answers about images that the answering network had not learned from, as serving gives
    them.
    """

    rows: Sequence[IndexRow]
    probability_N: Floats
    threshold: float
    """Of the default operating point."""

    @property
    def positive_N(self) -> NDArray[np.bool_]:
        """Which images have the finding."""
        return np.array([row.label == 1 for row in self.rows], dtype=np.bool_)

    @property
    def called_N(self) -> NDArray[np.bool_]:
        """Which images are said to have it."""
        return self.probability_N >= self.threshold


def describe_study(
    run: Run, held_out: HeldOut, profile: DecisionProfile, statement: DataStatement
) -> Study:
    """Return the partitions, exclusions and errors of a run directory."""
    rows = run.index.rows
    answers = HeldOutAnswers(
        [rows[position] for position in held_out.position_N],
        probabilities(profile.calibration, held_out.logit(PLAIN_PROFILE)),
        profile.thresholds[DEFAULT_OPERATING_POINT],
    )
    return Study(
        statement=statement,
        partitions=partitions(rows, run.fold_N.tolist()),
        unreadable=len(run.facts.get("unreadable") or ()),
        without_file=len(run.facts.get("missing") or ()),
        errors=error_groups(answers),
        surest_errors=surest_errors(answers),
    )


def partitions(rows: Sequence[IndexRow], folds: Sequence[int]) -> tuple[PartitionFigures, ...]:
    """Return who is in each fold; -1 is no fold."""
    members: dict[int, list[IndexRow]] = {}
    for row, fold in zip(rows, folds, strict=True):
        members.setdefault(fold, []).append(row)
    return tuple(
        _partition("learned from only" if fold < 0 else f"fold {fold}", members[fold])
        for fold in sorted(members)
    )


def _partition(name: str, rows: Sequence[IndexRow]) -> PartitionFigures:
    ages = [row.age_years for row in rows if row.age_years is not None]
    low, middle, high = np.quantile(ages, (0.25, 0.5, 0.75)).tolist() if ages else (0.0, 0.0, 0.0)
    return PartitionFigures(
        name=name,
        images=len(rows),
        positives=sum(row.label for row in rows),
        persons=len({row.person_group for row in rows}),
        age_quartiles=(low, middle, high) if ages else None,
        age_unknown=len(rows) - len(ages),
        female=sum(row.sex == "F" for row in rows),
        male=sum(row.sex == "M" for row in rows),
        sex_unknown=sum(row.sex not in ("F", "M") for row in rows),
        anteroposterior=sum(row.view_position == "AP" for row in rows),
        posteroanterior=sum(row.view_position == "PA" for row in rows),
        view_unknown=sum(row.view_position not in ("AP", "PA") for row in rows),
    )


_GROUPS: dict[str, Callable[[IndexRow], bool]] = {
    "all": lambda _: True,
    "women": lambda row: row.sex == "F",
    "men": lambda row: row.sex == "M",
    "AP": lambda row: row.view_position == "AP",
    "PA": lambda row: row.view_position == "PA",
    "under 18 years": lambda row: row.age_years is not None and row.age_years < _ADULT_YEARS,
    "18 to 64 years": lambda row: (
        row.age_years is not None and _ADULT_YEARS <= row.age_years < _OLD_YEARS
    ),
    "65 years and over": lambda row: row.age_years is not None and row.age_years >= _OLD_YEARS,
}


def error_groups(answers: HeldOutAnswers) -> tuple[ErrorGroup, ...]:
    """Count errors by sex, view and age; groups without an image are left out."""
    groups = []
    for name, belongs in _GROUPS.items():
        member_N = np.array([belongs(row) for row in answers.rows], dtype=np.bool_)
        positive_N = member_N & answers.positive_N
        called_N = member_N & answers.called_N
        if member_N.any():
            groups.append(
                ErrorGroup(
                    name=name,
                    images=int(member_N.sum()),
                    positives=int(positive_N.sum()),
                    false_negatives=int((positive_N & ~called_N).sum()),
                    false_positives=int((called_N & ~positive_N).sum()),
                )
            )
    return tuple(groups)


def surest_errors(answers: HeldOutAnswers) -> tuple[SurestError, ...]:
    """Name the wrong answers that lie farthest from the threshold, by log odds."""
    wrong_N = answers.called_N != answers.positive_N
    odds_N = _log_odds(answers.probability_N)
    distance_N = np.where(wrong_N, np.abs(odds_N - _log_odds(np.array(answers.threshold))), -1.0)
    return tuple(
        SurestError(
            image=answers.rows[place].image_id,
            label=answers.rows[place].label,
            probability=round(float(answers.probability_N[place]), 4),
        )
        for place in np.argsort(-distance_N, kind="stable")[:_SUREST]
        if wrong_N[place]
    )


def _log_odds(probability_N: Floats) -> Floats:
    kept_N = np.clip(probability_N, _LEAST, 1.0 - _LEAST)
    return np.log(kept_N) - np.log1p(-kept_N)
