"""Measure who a run directory's data are, and where its held-out answers are wrong.

Shape suffix: N held-out images.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

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


def describe_study(
    run: Run, held_out: HeldOut, profile: DecisionProfile, statement: DataStatement
) -> Study:
    """Return the partitions, exclusions and errors of a run directory."""
    return Study(
        statement=statement,
        partitions=tuple(_partitions(run)),
        unreadable=len(run.facts.get("unreadable") or ()),
        without_file=len(run.facts.get("missing") or ()),
        errors=tuple(_error_groups(run, held_out, profile)),
        surest_errors=tuple(_surest_errors(run, held_out, profile)),
    )


def _partitions(run: Run) -> Iterator[PartitionFigures]:
    rows = run.index.rows
    for fold in sorted(set(run.fold_N.tolist())):
        members = [row for row, own in zip(rows, run.fold_N.tolist(), strict=True) if own == fold]
        yield _partition("learned from only" if fold < 0 else f"fold {fold}", members)


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


def _error_groups(run: Run, held_out: HeldOut, profile: DecisionProfile) -> Iterator[ErrorGroup]:
    """Count errors by sex, view and age; groups without an image are left out."""
    rows = [run.index.rows[i] for i in held_out.position_N]
    positive_N = held_out.label_N == 1
    called_N = (
        probabilities(profile.calibration, held_out.logit(PLAIN_PROFILE))
        >= profile.thresholds[DEFAULT_OPERATING_POINT]
    )
    for name, belongs in _GROUPS.items():
        member_N = np.array([belongs(row) for row in rows], dtype=np.bool_)
        if member_N.any():
            yield ErrorGroup(
                name=name,
                images=int(member_N.sum()),
                positives=int((member_N & positive_N).sum()),
                false_negatives=int((member_N & positive_N & ~called_N).sum()),
                false_positives=int((member_N & ~positive_N & called_N).sum()),
            )


def _surest_errors(run: Run, held_out: HeldOut, profile: DecisionProfile) -> Iterator[SurestError]:
    """Name the wrong answers that lie farthest from the threshold, by log odds."""
    probability_N = probabilities(profile.calibration, held_out.logit(PLAIN_PROFILE))
    threshold = profile.thresholds[DEFAULT_OPERATING_POINT]
    wrong_N = (probability_N >= threshold) != (held_out.label_N == 1)
    odds_N = _log_odds(probability_N)
    distance_N = np.where(wrong_N, np.abs(odds_N - _log_odds(np.array(threshold))), -1.0)
    for place in np.argsort(-distance_N, kind="stable")[:_SUREST]:
        if wrong_N[place]:
            yield SurestError(
                image=run.index.rows[held_out.position_N[place]].image_id,
                label=int(held_out.label_N[place]),
                probability=round(float(probability_N[place]), 4),
            )


def _log_odds(probability_N: Floats) -> Floats:
    kept_N = np.clip(probability_N, _LEAST, 1.0 - _LEAST)
    return np.log(kept_N) - np.log1p(-kept_N)
