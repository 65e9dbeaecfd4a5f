"""The schema of an evaluation's metrics.json."""

from cxr.metrics_schema import Figures, Interval, Localisation, NoveltyGate, Section


class SubgroupFigures(Section):
    """Figures of one group of persons; None if it has too few positives or negatives."""

    attribute: str
    group: str
    n: int
    n_positive: int
    auroc: float | None
    auroc_ci95: Interval | None
    sensitivity: float | None
    sensitivity_ci95: Interval | None
    specificity: float | None
    specificity_ci95: Interval | None


class Picture(Section):
    """One picture of the gallery."""

    kind: str
    file: str
    """Relative to the folder of metrics.json."""
    image_id: str
    label: int
    probability: float


class TtaMeasure(Section):
    """One measure with and without TTA, and the paired difference."""

    plain: float
    plain_ci95: Interval
    tta: float
    tta_ci95: Interval
    difference: float
    difference_ci95: Interval


class TtaEffect(Section):
    """The effect of test-time augmentation on the same images; rates at raw logit 0."""

    policy: str
    n: int
    measures: dict[str, TtaMeasure]


class UnansweredFile(Section):
    """A file that could not be answered: the public code of its error, and the message to the
    sender.
    """

    image_id: str
    path: str
    label: int
    code: str
    detail: str


class EvaluatedBundle(Section):
    """The bundle that was evaluated."""

    model: str
    version: int
    sha256: str


class EvaluatedData(Section):
    """The data that it was evaluated on."""

    name: str
    images: int
    sha256: str


class EvaluationMetrics(Figures):
    """metrics.json of an evaluation: figures over every readable image, and of the unseen ones."""

    basis: str
    reading: str
    """Decision profile: `plain`, or the TTA policy."""
    bundle: EvaluatedBundle
    finding: str
    data: EvaluatedData
    n_seen: int
    """Images that the model learned from."""
    n_calibrated: int = 0
    """Images that its calibration and thresholds were fitted on."""
    n_novel: int
    n_missing: int
    unreadable: list[UnansweredFile]
    unseen: Figures | None = None
    """Figures of the images that the model did not learn from, if it learned from any."""
    localisation: Localisation | None = None
    novelty_gate: NoveltyGate | None = None
    subgroups: list[SubgroupFigures]
    gallery: list[Picture]
    tta_effect: TtaEffect | None = None

    @property
    def honest(self) -> Figures:
        """The figures to show first: those of the unseen images, if there are any."""
        return self.unseen if self.unseen is not None and self.unseen.n else self
