"""Figures by age, sex and view position, to find groups in which a model is worse than on average.

A group with few positives is counted and not measured, because its figures would be noise.

Shape suffix: N images.
"""

from collections.abc import Sequence

import numpy as np

from cxr.evaluation_schema import SubgroupFigures
from training.evaluation.prediction import LabelledPrediction
from training.stats.metrics import at_threshold, auroc, bootstrap_interval

MIN_POSITIVES = 20
"""Images with the finding, and as many without, from which a group is measured."""

_AGE_BOUNDS = (0, 1, 6, 18, 40, 60, 80)
"""First years of the age groups; the last one is open."""

_ATTRIBUTES = ("age", "sex", "view position")


def subgroup_figures(
    predictions: Sequence[LabelledPrediction], threshold: float
) -> list[SubgroupFigures]:
    """Measure each group of each attribute that the images have at all, at one operating point's
    threshold.

    Returns:
        One entry a group. Figures are None under 20 positives or negatives.
    """
    known = [
        name
        for name in _ATTRIBUTES
        if any(_group(prediction, name) is not None for prediction in predictions)
    ]
    return [
        entry for attribute in known for entry in _figures_by(predictions, attribute, threshold)
    ]


def _figures_by(
    predictions: Sequence[LabelledPrediction], attribute: str, threshold: float
) -> list[SubgroupFigures]:
    members: dict[str | None, list[LabelledPrediction]] = {}
    for prediction in predictions:
        members.setdefault(_group(prediction, attribute), []).append(prediction)
    names = sorted((name for name in members if name is not None), key=_first_number)
    return [_entry(attribute, name, members[name], threshold) for name in names] + [
        _entry(attribute, "not stated", unstated, threshold)
        for unstated in [members.get(None, [])]
        if unstated
    ]


def _entry(
    attribute: str, group: str, predictions: Sequence[LabelledPrediction], threshold: float
) -> SubgroupFigures:
    label_N = np.array([prediction.label for prediction in predictions], dtype=np.int_)
    positives = int(label_N.sum())
    is_large = min(positives, len(label_N) - positives) >= MIN_POSITIVES
    probability_N = np.array([prediction.probability for prediction in predictions])
    groups_N = [prediction.person_group for prediction in predictions]
    point = at_threshold(label_N, probability_N, threshold) if is_large else None
    return SubgroupFigures(
        attribute=attribute,
        group=group,
        n=len(label_N),
        n_positive=positives,
        auroc=auroc(label_N, probability_N) if is_large else None,
        auroc_ci95=bootstrap_interval(label_N, probability_N, groups_N) if is_large else None,
        sensitivity=point and point.sensitivity,
        sensitivity_ci95=point and point.sensitivity_ci95,
        specificity=point and point.specificity,
        specificity_ci95=point and point.specificity_ci95,
    )


def _group(prediction: LabelledPrediction, attribute: str) -> str | None:
    if attribute == "sex":
        return prediction.sex
    if attribute == "view position":
        return prediction.view_position
    return None if prediction.age_years is None else _age_group(prediction.age_years)


def _age_group(years: float) -> str:
    number = int(np.searchsorted(_AGE_BOUNDS, years, side="right")) - 1
    first = _AGE_BOUNDS[number]
    return (
        f"{first} years and over"
        if number == len(_AGE_BOUNDS) - 1
        else f"{first} to under {_AGE_BOUNDS[number + 1]} years"
    )


def _first_number(name: str) -> tuple[int, str]:
    first = name.split(" ", maxsplit=1)[0]
    return (int(first) if first.isdigit() else 0, name)
