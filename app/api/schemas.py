"""The HTTP contract: the parameters that are taken, and the JSON that is answered."""

import base64
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.api.decimal_number import DecimalNumber
from app.dicom_results import ResultKind
from app.inference.prediction import FROM_REQUEST, Prediction
from app.inference.request import PredictionRequest
from app.models.store import ServedVersion
from cxr.orientation import Orientation
from cxr.radiograph import Format, Intensity, Metadata, MetadataSource, Sex, View
from cxr.warning_codes import WarningCode

_FLAGS = {"true": True, "1": True, "false": False, "0": False}


def _read_flag(text: object) -> bool:
    try:
        return _FLAGS[str(text).lower()]
    except KeyError:
        raise ValueError("must be true, false, 1 or 0") from None


Flag = Annotated[bool, BeforeValidator(_read_flag)]


class ImageParameters(BaseModel):
    """What may be asked about any upload to a model that is named already; a name that is not
    listed is refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    tta: Flag = Field(
        False,
        description="Look at several views of the image and average them (test-time augmentation).",
    )
    operating_point: str | None = Field(
        None,
        max_length=64,
        description="The threshold to decide by, one of the model's; if none is named, the "
        "service's or else the model's.",
    )
    prevalence: DecimalNumber | None = Field(
        None, ge=0.0001, le=0.9999, allow_inf_nan=False, examples=[0.05],
        description="Share of positives among your patients. Probability p and threshold both "
                    "become "
        "logit(p') = logit(p) + logit(prevalence) - logit(training prevalence), with logit(x) = "
        "ln(x / (1 - x)) and the "
        "model's `training_prevalence`; so the label, sensitivity and specificity stay what they "
        "are.",
    )  # fmt: skip
    age_years: DecimalNumber | None = Field(
        None,
        ge=0,
        le=120,
        allow_inf_nan=False,
        description="The patient's age, used if the file does not state it.",
    )
    sex: Sex | None = Field(
        None, description="The patient's sex, used if the file does not state it."
    )
    view_position: View | None = Field(
        None, description="The view, used if the file does not state it."
    )

    @property
    def wants_heatmap(self) -> bool:
        """Tell whether the map is to be drawn."""
        return False

    def prediction_request(self) -> PredictionRequest:
        """Return the options as the classifier takes them."""
        names = ("age_years", "sex", "view_position")
        source = {name: FROM_REQUEST for name in names if getattr(self, name) is not None}
        stated = Metadata(self.age_years, self.sex, self.view_position, MetadataSource(**source))
        return PredictionRequest(
            tta=self.tta, operating_point=self.operating_point, prevalence=self.prevalence,
            stated=stated, heatmap=self.wants_heatmap,
        )  # fmt: skip


class RequestParameters(ImageParameters):
    """What may be asked about any upload, and of which model."""

    model: str | None = Field(
        None,
        max_length=64,
        description="The model that answers; the service's default if none is named.",
        examples=["pneumothorax"],
    )


class PredictParameters(RequestParameters):
    """The query of `/predict` and `/predict/batch`."""

    heatmap: Flag = Field(
        False, description="Draw where the evidence lies, as a PNG over the radiograph."
    )

    @property
    def wants_heatmap(self) -> bool:
        """Tell whether the map is to be drawn."""
        return self.heatmap


class DicomParameters(RequestParameters):
    """The query of `/predict/dicom`."""

    result: ResultKind = Field(
        description="`sr`: a structured report (Comprehensive 3D SR, TID 1500). "
        "`sc`: the heat map as a Secondary Capture, with its caveat burnt in."
    )

    @property
    def wants_heatmap(self) -> bool:
        """Tell whether the map is to be drawn: a picture needs it."""
        return self.result == "sc"


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
    orientation: Orientation = Field(
        description="How the stored image was turned or mirrored; turns are clockwise, in degrees."
    )
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
    """Source of each value: a DICOM keyword, `request`, or null if the value is null."""

    age_years: str | None
    sex: str | None
    view_position: str | None


class MetadataAnswer(Answer):
    """Values of the file, or else of the request; null if neither states one."""

    age_years: float | None
    sex: Sex | None
    view_position: View | None
    source: MetadataSourceAnswer


class PredictionAnswer(Answer):
    """What a model says of one radiograph."""

    request_id: str
    model: ModelIdentity
    finding: str
    probability: float = Field(
        ge=0,
        le=1,
        description=(
            "Calibrated, not rounded: of many such images with the answer 0.3, about three in ten "
            "show the finding. This does not hold if images differ from those of the fit: by "
            "device, by patients or by the share of positives (`prevalence` states another). "
            "`GET /models` has the ECE on clean and corrupted images."
        ),
    )
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
        # One validation of all parts takes a third of the time of one for each.
        return cls.model_validate(
            {
                "request_id": request_id,
                "model": identity_of(version),
                "finding": version.manifest.finding,
                "probability": finding.probability,
                "label": finding.label,
                "threshold": finding.threshold,
                "operating_point": finding.operating_point,
                "metadata": prediction.metadata,
                "tta": finding.tta,
                "novelty": finding.novelty,
                "warnings": prediction.warnings,
                "processing": {
                    "format": processing.format,
                    "transfer_syntax": processing.transfer_syntax,
                    "rows": processing.rows,
                    "columns": processing.columns,
                    "inverted": processing.inverted,
                    "intensity": processing.intensity,
                    "orientation": processing.orientation,
                    "preprocess": version.manifest.preprocess.version,
                },
                "heatmap": _heatmap(prediction.heatmap_png),
                "timings_ms": prediction.timings_ms,
            },
            from_attributes=True,
        )


def identity_of(version: ServedVersion) -> ModelIdentity:
    """Name the graph that answers."""
    manifest, graph = version.manifest, version.graph
    return ModelIdentity(
        name=manifest.model,
        version=manifest.version,
        sha256=version.bundle.sha256,
        engine=graph.engine,
        precision=graph.precision,
    )


def _heatmap(png: bytes | None) -> HeatmapAnswer | None:
    return None if png is None else HeatmapAnswer(data=base64.b64encode(png).decode("ascii"))
