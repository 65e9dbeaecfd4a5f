"""From a graph's outputs to a finding: probability, label, novelty, warnings, map of the logit.

Shape suffixes: N or K views of one image, h and w map rows and columns.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cxr.prevalence_shift import PrevalenceShift
from cxr.radiograph import Metadata, Sex, View
from cxr.tta import POLICIES, mean_logit, mean_map
from cxr.warning_codes import ImageWarning, WarningCode

PLAIN_PROFILE = "plain"

Probability = Annotated[float, Field(ge=0.0, le=1.0)]


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the graph says of a batch; all float32.

    `logit_N` is raw, before calibration.  `cam_Nhw` is the logit's own map:
    `pool(cam) + bias == logit` with the pool and the bias of the bundle, or `bias_N` of a graph
    that reads age, sex and view too.
    If no map was asked for, it has no cells.
    `novelty_N` is the whitened distance from the training set, of features and coarse shape.
    """

    logit_N: NDArray[np.float32]
    cam_Nhw: NDArray[np.float32]
    novelty_N: NDArray[np.float32]
    bias_N: NDArray[np.float32] | None = None
    """Of graphs that read metadata; nothing of an answer needs it but the proof of the map."""

    def is_sound(self, num_images: int) -> bool:
        """Tell whether there are outputs for so many images, all of them finite."""
        arrays = (self.logit_N, self.cam_Nhw, self.novelty_N)
        return all(len(array) == num_images and bool(np.isfinite(array).all()) for array in arrays)

    def without_map(self) -> "Outputs":
        """Return the same for one who asked for no map."""
        return replace(self, cam_Nhw=no_map(len(self.logit_N)))


def no_map(num_images: int) -> NDArray[np.float32]:
    """Return maps without cells, float32 [N, 0, 0]."""
    return np.empty((num_images, 0, 0), np.float32)


class ClosedModel(BaseModel):
    """Base of the specs: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Labels(ClosedModel):
    """The two words of the answer."""

    negative: str
    positive: str


class Calibration(ClosedModel):
    """Platt scaling (Platt 1999): `probability = sigmoid(slope * logit + intercept)`."""

    slope: Annotated[float, Field(gt=0.0)]
    intercept: float

    def probability(self, logit: float) -> float:
        """Return the calibrated probability of a raw logit."""
        score = self.slope * logit + self.intercept
        return (
            1.0 / (1.0 + math.exp(-score))
            if score >= 0
            else math.exp(score) / (1.0 + math.exp(score))
        )


class DecisionProfile(ClosedModel):
    """How logits become labels under one way of looking: the plain image, or a TTA policy's
    mean.
    """

    calibration: Calibration
    thresholds: Annotated[dict[str, Probability], Field(min_length=1)]
    """Smallest positive probability at each operating point."""


class Cam(ClosedModel):
    """How the map adds up to the logit: `pool(cam) + bias == logit`."""

    pool: Literal["mean", "lse"]
    bias: float


class NoveltyLimits(ClosedModel):
    """Distances from the training images at which to speak up, and how they were found."""

    warn: Annotated[float, Field(gt=0.0)]
    novel: Annotated[float, Field(gt=0.0)]
    source: str


class Scope(ClosedModel):
    """The patients and images that the model is intended for; None means no restriction."""

    min_age_years: float | None = None
    max_age_years: float | None = None
    sexes: tuple[Sex, ...] | None = None
    views: tuple[View, ...] | None = None
    modalities: tuple[str, ...]


class InterpretSpec(ClosedModel):
    """Everything of a manifest that turns outputs into a finding."""

    finding: str
    labels: Labels
    readings: dict[str, DecisionProfile]
    """By name: `plain`, and the TTA policy's."""
    default_operating_point: str
    tta_policy: str
    cam: Cam
    novelty: NoveltyLimits
    scope: Scope

    @model_validator(mode="after")
    def _readings_agree(self) -> Self:
        if self.tta_policy not in POLICIES:
            raise ValueError("tta_policy is not known to this version")
        if not {PLAIN_PROFILE, self.tta_policy} <= self.readings.keys():
            raise ValueError("readings lack the plain one or the TTA policy's")
        if len({frozenset(profile.thresholds) for profile in self.readings.values()}) != 1:
            raise ValueError("readings differ in their operating points")
        if self.default_operating_point not in self.operating_points:
            raise ValueError("default_operating_point has no threshold")
        return self

    @property
    def operating_points(self) -> tuple[str, ...]:
        """The names of the operating points, as the plain profile lists them."""
        return tuple(self.profile().thresholds)

    def profile(self, *, tta: bool = False) -> DecisionProfile:
        """Return the decision profile of the plain view alone, or of the TTA policy."""
        return self.readings[self.tta_policy if tta else PLAIN_PROFILE]


@dataclass(frozen=True, slots=True)
class Tta:
    """How many views were read, and how far apart their probabilities lie (max - min)."""

    views: int
    spread: float


@dataclass(frozen=True, slots=True)
class Novelty:
    """How far the image lies from the training images; `is_novel` when `score` > `limit`."""

    score: float
    limit: float
    is_novel: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """What the model says of one image.

    `label` is the positive one exactly when `probability >= threshold`.
    `prevalence` is the one that was asked for; None means the training data's.
    `cam_hw` is float32 in units of the logit, aligned with the plain image; it has no cells if no
    map was asked for.
    """

    probability: float
    logit: float
    """Mean of the views' raw logits, before calibration."""
    label: str
    threshold: float
    operating_point: str
    prevalence: float | None
    tta: Tta | None
    novelty: Novelty
    cam_hw: NDArray[np.float32]
    warnings: tuple[ImageWarning, ...]


def interpret(
    outputs: Outputs,
    spec: InterpretSpec,
    *,
    operating_point: str | None = None,
    shift: PrevalenceShift | None = None,
) -> Finding:
    """Read the outputs of one image's views: the plain one alone, or the bundle's TTA policy in
    order.

    Logits of views are averaged (their mean is what the policy's calibration
    was fitted on), maps too, each after its view was undone.  Novelty is the
    plain view's.  A prevalence shift moves probabilities and the threshold alike.

    Raises:
        KeyError: the operating point is not one of the spec's.
    """
    views = POLICIES[spec.tta_policy] if len(outputs.logit_N) > 1 else POLICIES[spec.tta_policy][:1]
    profile = spec.profile(tta=len(views) > 1)
    name = operating_point or spec.default_operating_point
    move = shift.apply if shift else _stay
    threshold = move(profile.thresholds[name])
    logit = mean_logit(outputs.logit_N)
    probability = move(profile.calibration.probability(logit))
    novelty = _novelty(float(outputs.novelty_N[0]), spec)
    return Finding(
        probability=probability,
        logit=logit,
        label=spec.labels.positive if probability >= threshold else spec.labels.negative,
        threshold=threshold,
        operating_point=name,
        prevalence=shift.stated if shift else None,
        tta=_tta(outputs, profile.calibration, move) if len(views) > 1 else None,
        novelty=novelty,
        cam_hw=mean_map(outputs.cam_Nhw, views),
        warnings=tuple(_novelty_warnings(novelty.score, spec)),
    )


def scope_warnings(metadata: Metadata, scope: Scope) -> Iterator[ImageWarning]:
    """Yield a warning if the age, sex or view is outside the model's scope or missing."""
    age = metadata.age_years
    low, high = scope.min_age_years, scope.max_age_years
    if (low, high) != (None, None):
        if age is None:
            yield ImageWarning(
                WarningCode.AGE_MISSING,
                f"The age is not stated; the model was made for {_range_years(low, high)}.",
            )
        elif (low is not None and age < low) or (high is not None and age > high):
            yield ImageWarning(
                WarningCode.OUTSIDE_AGE_SCOPE, f"The model was made for {_range_years(low, high)}."
            )
    if scope.views is not None:
        if metadata.view_position is None:
            yield ImageWarning(
                WarningCode.VIEW_MISSING,
                f"The view is not stated; the model was made for {' and '.join(scope.views)}.",
            )
        elif metadata.view_position not in scope.views:
            yield ImageWarning(
                WarningCode.OUTSIDE_VIEW_SCOPE,
                f"The model was made for {' and '.join(scope.views)} views.",
            )
    if scope.sexes is not None and metadata.sex is not None and metadata.sex not in scope.sexes:
        yield ImageWarning(
            WarningCode.OUTSIDE_SEX_SCOPE, "The model was not made for patients of this sex."
        )


def _stay(probability: float) -> float:
    return probability


def _tta(outputs: Outputs, calibration: Calibration, move: Callable[[float], float]) -> Tta:
    probabilities = [move(calibration.probability(float(logit))) for logit in outputs.logit_N]
    return Tta(views=len(probabilities), spread=max(probabilities) - min(probabilities))


def _novelty(score: float, spec: InterpretSpec) -> Novelty:
    return Novelty(score=score, limit=spec.novelty.novel, is_novel=score > spec.novelty.novel)


def _novelty_warnings(score: float, spec: InterpretSpec) -> Iterator[ImageWarning]:
    if score > spec.novelty.warn:
        yield ImageWarning(
            WarningCode.NOVEL_INPUT, "The image differs from those that the model has learned from."
        )


def _range_years(low: float | None, high: float | None) -> str:
    if low is None:
        return f"patients up to {high:g} years"
    if high is None:
        return f"patients from {low:g} years on"
    return f"patients from {low:g} to {high:g} years"
