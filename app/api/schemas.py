"""The HTTP contract: the parameters that are taken, and the JSON that is answered."""

import base64
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.dicom_results import ResultKind
from app.inference.prediction import FROM_REQUEST, Prediction
from app.inference.request import PredictionRequest
from app.models.store import ModelStore, ServedVersion, StoredModel
from app.models.tuning import ExecutionPlan
from app.settings import Settings
from cxr.interpret import Labels, Scope
from cxr.radiograph import Format, Intensity, Metadata, MetadataSource, Sex, View, WarningCode

_FLAGS = {"true": True, "1": True, "false": False, "0": False}


def _read_flag(text: object) -> bool:
    try:
        return _FLAGS[str(text).lower()]
    except KeyError:
        raise ValueError("must be true, false, 1 or 0") from None


Flag = Annotated[bool, BeforeValidator(_read_flag)]


class RequestParameters(BaseModel):
    """What may be asked about any upload; a name that is not listed is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str | None = Field(
        None, max_length=64, description="The model that answers; the service's default where "
                                         "none is named.",
        examples=["pneumothorax"],
    )  # fmt: skip
    tta: Flag = Field(
        False,
        description="Look at several views of the image and average them (test-time augmentation).",
    )
    operating_point: str | None = Field(
        None,
        max_length=64,
        description="The threshold to decide by, one of the model's; where none is named, the "
        "service's or else the model's.",
    )
    prevalence: float | None = Field(
        None, ge=0.0001, le=0.9999, allow_inf_nan=False, examples=[0.05],
        description="Share of positives among your patients. Probability p and threshold both "
                    "become "
        "logit(p') = logit(p) + logit(prevalence) - logit(training prevalence), with logit(x) = "
        "ln(x / (1 - x)) and the "
        "model's `training_prevalence`; so the label, sensitivity and specificity stay what they "
        "are.",
    )  # fmt: skip
    age_years: float | None = Field(
        None,
        ge=0,
        le=120,
        allow_inf_nan=False,
        description="The patient's age, used where the file does not state it.",
    )
    sex: Sex | None = Field(
        None, description="The patient's sex, used where the file does not state it."
    )
    view_position: View | None = Field(
        None, description="The view, used where the file does not state it."
    )

    def prediction_request(self) -> PredictionRequest:
        """Say what is asked, in the classifier's words."""
        names = ("age_years", "sex", "view_position")
        source = {name: FROM_REQUEST for name in names if getattr(self, name) is not None}
        stated = Metadata(self.age_years, self.sex, self.view_position, MetadataSource(**source))
        return PredictionRequest(
            tta=self.tta, operating_point=self.operating_point, prevalence=self.prevalence,
            stated=stated
        )  # fmt: skip


class PredictParameters(RequestParameters):
    """The query of `/predict` and `/predict/batch`."""

    heatmap: Flag = Field(
        False, description="Draw where the evidence lies, as a PNG over the radiograph."
    )

    def prediction_request(self) -> PredictionRequest:
        """Say what is asked, the heat map included."""
        return replace(super().prediction_request(), heatmap=self.heatmap)


class DicomParameters(RequestParameters):
    """The query of `/predict/dicom`."""

    result: ResultKind = Field(
        description="`sr`: a structured report (Comprehensive 3D SR, TID 1500). "
        "`sc`: the heat map as a Secondary Capture, with its caveat burnt in."
    )

    def prediction_request(self) -> PredictionRequest:
        """Say what is asked; a picture needs the heat map."""
        return replace(super().prediction_request(), heatmap=self.result == "sc")


class Answer(BaseModel):
    """Base of everything that is answered."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())


class ModelIdentity(Answer):
    """Exactly which model answered."""

    name: str
    version: int
    sha256: str = Field(description="SHA-256 of the graph file.")
    engine: str
    precision: str


class TtaAnswer(Answer):
    """How far the views' probabilities lie apart."""

    views: int
    spread: float = Field(description="Largest minus smallest probability of the views.")


class NoveltyAnswer(Answer):
    """How far the image lies from those that the model learned from."""

    score: float
    limit: float
    is_novel: bool = Field(description="Whether score > limit.")


class WarningAnswer(Answer):
    """One thing that weakens the answer."""

    code: WarningCode
    detail: str


class ProcessingAnswer(Answer):
    """What the service found and did to the pixels."""

    format: Format
    transfer_syntax: str | None = Field(
        description="DICOM transfer syntax UID; null for PNG and JPEG."
    )
    rows: int
    columns: int
    inverted: bool = Field(description="Whether black and white were exchanged (MONOCHROME1).")
    intensity: Intensity = Field(description="How stored values became grey levels.")
    preprocess: str = Field(description="Version of the way from the picture to the model's input.")


class HeatmapAnswer(Answer):
    """A picture of the evidence over the radiograph."""

    media_type: Literal["image/png"] = "image/png"
    data: str = Field(description="The file in base64.", json_schema_extra={"format": "byte"})


class TimingsAnswer(Answer):
    """Where the time went, in milliseconds."""

    decode: float
    queue: float
    run: float
    total: float


class MetadataSourceAnswer(Answer):
    """Where each fact comes from: a DICOM keyword, `request`, or null where the fact is null."""

    age_years: str | None
    sex: str | None
    view_position: str | None


class MetadataAnswer(Answer):
    """What the file, or else the request, states; null where neither does."""

    age_years: float | None
    sex: Sex | None
    view_position: View | None
    source: MetadataSourceAnswer


class PredictionAnswer(Answer):
    """What a model says of one radiograph."""

    request_id: str
    model: ModelIdentity
    finding: str
    probability: float = Field(ge=0, le=1, description="Calibrated, not rounded.")
    label: str = Field(description="The positive label exactly when probability >= threshold.")
    threshold: float
    operating_point: str
    metadata: MetadataAnswer
    tta: TtaAnswer | None
    novelty: NoveltyAnswer
    warnings: list[WarningAnswer]
    processing: ProcessingAnswer
    heatmap: HeatmapAnswer | None
    timings_ms: TimingsAnswer

    @classmethod
    def write(cls, prediction: Prediction, request_id: str) -> Self:
        """Write a prediction as it is answered."""
        finding, version, processing = prediction.finding, prediction.version, prediction.processing
        return cls(
            request_id=request_id,
            model=_identity(version),
            finding=version.manifest.finding,
            probability=finding.probability,
            label=finding.label,
            threshold=finding.threshold,
            operating_point=finding.operating_point,
            metadata=MetadataAnswer.model_validate(prediction.metadata, from_attributes=True),
            tta=TtaAnswer.model_validate(finding.tta, from_attributes=True)
            if finding.tta
            else None,
            novelty=NoveltyAnswer.model_validate(finding.novelty, from_attributes=True),
            warnings=[
                WarningAnswer(code=warning.code, detail=warning.detail)
                for warning in prediction.warnings
            ],
            processing=ProcessingAnswer(
                format=processing.format,
                transfer_syntax=processing.transfer_syntax,
                rows=processing.rows,
                columns=processing.columns,
                inverted=processing.inverted,
                intensity=processing.intensity,
                preprocess=version.manifest.preprocess.version,
            ),
            heatmap=_heatmap(prediction.heatmap_png),
            timings_ms=TimingsAnswer.model_validate(prediction.timings_ms, from_attributes=True),
        )


class VersionAnswer(Answer):
    """One version in the store."""

    version: int
    state: Literal["current", "refused", "superseded"] = Field(
        description="Only the current version answers."
    )
    reason: str | None = Field(None, description="Why the version is refused.")


class PlanAnswer(Answer):
    """How this process runs the model."""

    run_slots: int = Field(description="Batches that run at once.")
    threads: int = Field(description="Threads of one run on the CPU.")
    max_batch: int = Field(description="Most images in one run.")
    ms_per_image: float = Field(
        description="What each image adds to a run, as measured before the first request."
    )
    ms_per_run: float = Field(description="What a run takes besides its images.")
    source: Literal["measured", "remembered"] = Field(
        description="Whether that was measured at this start, or at an earlier one."
    )

    @classmethod
    def write(cls, plan: ExecutionPlan) -> Self:
        """Tell what was chosen."""
        return cls(
            run_slots=plan.run_slots, threads=plan.threads, max_batch=plan.max_batch,
            source=plan.source,
            ms_per_image=round(1000 * plan.seconds_per_image, 3),
            ms_per_run=round(1000 * plan.seconds_per_run, 3),
        )  # fmt: skip


class CurrentAnswer(Answer):
    """What is known of the version that answers."""

    identity: ModelIdentity
    plan: PlanAnswer
    finding: str
    labels: Labels
    scope: Scope = Field(description="Whom and what the model was made for.")
    operating_points: dict[str, float] = Field(
        description="Smallest positive probability of a plain image, by name."
    )
    operating_points_tta: dict[str, float] = Field(description="The same with tta=true.")
    default_operating_point: str = Field(
        description="Decides where a request names no operating point."
    )
    tta_policy: str
    training_prevalence: float | None = Field(
        description="Share of positives that probabilities refer to where a request states no "
        "`prevalence`."
    )
    novelty_limit: float
    input_size: int
    intended_use: str
    limits: str
    metrics: dict[str, Any] = Field(
        description="As measured on the exported model, with intervals."
    )

    @classmethod
    def write(cls, version: ServedVersion, settings: Settings) -> Self:
        """Describe the version that answers."""
        manifest = version.manifest
        is_set = settings.operating_point in manifest.operating_points
        return cls(
            identity=_identity(version),
            plan=PlanAnswer.write(version.plan),
            finding=manifest.finding,
            labels=manifest.labels,
            scope=manifest.scope,
            operating_points=manifest.readings["plain"].thresholds,
            operating_points_tta=manifest.readings[manifest.tta_policy].thresholds,
            default_operating_point=settings.operating_point
            if is_set
            else manifest.default_operating_point,
            tta_policy=manifest.tta_policy,
            training_prevalence=manifest.training_data.prevalence,
            novelty_limit=manifest.novelty.novel,
            input_size=manifest.input_size,
            intended_use=manifest.intended_use,
            limits=manifest.limits,
            metrics=manifest.metrics,
        )


class ModelAnswer(Answer):
    """One model of the store; `current` is null where no version is good."""

    name: str
    current: CurrentAnswer | None
    versions: list[VersionAnswer]

    @classmethod
    def write(cls, model: StoredModel, settings: Settings) -> Self:
        """Describe a model and all its versions."""
        return cls(
            name=model.name,
            current=CurrentAnswer.write(model.current, settings) if model.current else None,
            versions=[_version(model, version) for version in model.versions],
        )


class ModelsAnswer(Answer):
    """What is served."""

    default: str = Field(description="The model that answers where a request names none.")
    models: list[ModelAnswer]

    @classmethod
    def write(cls, store: ModelStore, settings: Settings) -> Self:
        """Describe all models of the store."""
        return cls(
            default=settings.default_model,
            models=[ModelAnswer.write(model, settings) for model in store.models],
        )


class LivenessAnswer(Answer):
    """The process is sound."""

    status: Literal["alive"] = "alive"


class ReadinessAnswer(Answer):
    """The default model answers."""

    status: Literal["ready"] = "ready"
    notes: list[str] = Field(
        [], description="What should be looked at although the service is sound: refused bundles."
    )


def _identity(version: ServedVersion) -> ModelIdentity:
    manifest, graph = version.manifest, version.graph
    return ModelIdentity(
        name=manifest.model,
        version=manifest.version,
        sha256=version.bundle.sha256,
        engine=graph.engine,
        precision=graph.precision,
    )


def _version(model: StoredModel, version: int) -> VersionAnswer:
    if version in model.refused:
        return VersionAnswer(version=version, state="refused", reason=model.refused[version])
    is_current = model.current is not None and model.current.manifest.version == version
    return VersionAnswer(version=version, state="current" if is_current else "superseded")


def _heatmap(png: bytes | None) -> HeatmapAnswer | None:
    return None if png is None else HeatmapAnswer(data=base64.b64encode(png).decode("ascii"))
