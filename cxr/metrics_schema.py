"""The schema of a bundle's metrics.json; `cxr.evaluation_schema` has that of an evaluation.

A figure that the data don't allow is None. Keys that this version does not know are kept, so that
a bundle of a later version can be served.
"""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict

Interval = list[float]
"""Lower and upper bound, 95 %."""


class Section(BaseModel):
    """Base of all parts of metrics.json."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    def as_json(self) -> dict[str, Any]:
        """Return the section as plain JSON values, without the keys that were never set."""
        return self.model_dump(mode="json", exclude_unset=True)

    def text(self) -> str:
        """Return the text of the file."""
        return self.model_dump_json(indent=2, exclude_unset=True) + "\n"

    def changed(self, **values: object) -> Self:
        """Return a copy with some values replaced."""
        return self.model_copy(update=values)


class OperatingPointFigures(Section):
    """Decisions `probability >= threshold`; rates have Wilson intervals."""

    threshold: float
    accuracy: float | None
    accuracy_ci95: Interval | None
    sensitivity: float | None
    sensitivity_ci95: Interval | None
    specificity: float | None
    specificity_ci95: Interval | None
    ppv: float | None
    ppv_ci95: Interval | None
    npv: float | None
    npv_ci95: Interval | None
    confusion: list[list[int]]
    """[[tn, fp], [fn, tp]]"""
    criterion: str | None = None
    """The rule that chose the threshold."""
    proven: bool | None = None
    """Whether the rule holds by a confidence bound, and not only as observed."""


class Figures(Section):
    """What is measured of any set of predictions."""

    n: int
    n_positive: int
    n_person_groups: int | None = None
    auroc: float | None
    auroc_ci95: Interval | None
    auroc_ci95_method: str | None = None
    average_precision: float | None
    brier: float | None
    ece: float | None
    operating_points: dict[str, OperatingPointFigures]
    default_operating_point: str

    @property
    def default_point(self) -> OperatingPointFigures:
        """The figures of the default operating point."""
        return self.operating_points[self.default_operating_point]


class ShiftCalibration(Section):
    """How well a calibration fits one set of images."""

    ece: float | None
    slope: float | None
    """Factor of the calibrated logit that a refit would take: 1 is right, below 1 the answers are
    too sure."""


class CrossFittedCalibration(Section):
    """Figures of a calibration that is fitted without the image's person each time."""

    brier: float | None
    ece: float | None
    ece_corrupted: float | None = None
    """On corrupted copies."""


class CalibrationFigures(Section):
    """`probability = sigmoid(slope * logit + intercept)`, and how well it fits."""

    slope: float
    slope_ci95: Interval | None
    intercept: float
    intercept_ci95: Interval | None
    note: str | None
    clean: ShiftCalibration | None = None
    corrupted: ShiftCalibration | None = None
    ece_by_corruption: dict[str, float | None] | None = None
    cross_fitted: CrossFittedCalibration


class ProfileFigures(Figures):
    """Figures of one decision profile: the plain view, or a TTA policy."""

    calibration: CalibrationFigures


class TtaFigures(ProfileFigures):
    """Figures of the bundle's TTA policy."""

    policy: str


class CorruptionFigures(Section):
    """Figures of one kind of corrupted copies; rates at raw logit 0."""

    auroc: float | None
    sensitivity: float | None
    specificity: float | None


class Robustness(Section):
    """Figures of all corrupted copies; `none` are the images themselves."""

    auroc: float | None
    """Mean over the images themselves and every corruption."""
    stresses: dict[str, CorruptionFigures]


class GuessFigures(Section):
    """How well a map, or a guess that ignores the image, points at segmentation masks."""

    pointing: float | None
    pointing_ci95: Interval | None
    energy: float | None


class LocalisationGroup(Section):
    """Localisation over all masks, or those of one size."""

    n: int
    map: GuessFigures
    centre: GuessFigures
    usual_place: GuessFigures
    auroc: float | None = None
    """Of these positive images against all negative ones."""
    auroc_ci95: Interval | None = None
    sensitivity: float | None = None
    """At the default operating point."""
    sensitivity_ci95: Interval | None = None


class Localisation(Section):
    """How well maps point at segmentation masks; sizes are terciles of the masks' area."""

    tolerance: float
    area_terciles: list[float]
    all: LocalisationGroup
    small: LocalisationGroup
    medium: LocalisationGroup
    large: LocalisationGroup
    basis: str | None = None

    @property
    def groups(self) -> dict[str, LocalisationGroup]:
        """The groups by name, all masks first."""
        return {"all": self.all, "small": self.small, "medium": self.medium, "large": self.large}


class EdgeImages(Section):
    """Synthetic images that are no radiographs, against the novelty limits."""

    edge_images: int
    edge_images_warned: int
    edge_images_novel: int


class NoveltyShares(Section):
    """Shares of images over the novelty limits (`warned`, `novel`), or with any warning."""

    n: int
    warned: float
    novel: float
    flagged: float


class OodFigures(NoveltyShares):
    """The gate on images that are no upright frontal chest radiographs."""

    n_objects: int
    """Different things; copies of one thing count once."""
    auroc: float | None
    """Of the distance, against the radiographs."""
    origin: str | None = None


class NoveltyGate(Section):
    """How well a bundle detects images that are no upright frontal chest radiographs."""

    basis: str
    radiographs: NoveltyShares
    kinds: dict[str, OodFigures]
    origins: dict[str, OodFigures]
    n_unreadable: int


class PrecisionFigures(Section):
    """The cost of another precision against fp32, and whether it is allowed."""

    images: int | None = None
    """None if it was not measured."""
    auroc_change: float | None = None
    flips: float | None = None
    max_probability_change: float | None = None
    cam_correlation: float | None = None
    allowed: bool
    refused_for: list[str]


class Recalibration(Section):
    """A recalibration for one site; figures are of persons that the calibration did not see."""

    site: str
    from_version: int
    n_fitted: int
    n_fitted_positive: int
    ece_before: float | None
    """Of the version that was recalibrated, on the same images."""
    ece: float | None
    brier_before: float | None
    brier: float | None


class BundleMetrics(ProfileFigures):
    """metrics.json of a bundle: held-out figures of the plain view, and all else."""

    basis: str
    tta: TtaFigures
    stressed: Robustness | None = None
    localisation: Localisation | None = None
    novelty: EdgeImages | None = None
    precisions: dict[str, PrecisionFigures] | None = None
    novelty_gate: NoveltyGate | None = None
    recalibration: Recalibration | None = None
