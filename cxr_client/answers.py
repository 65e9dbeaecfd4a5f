"""The service's answers as JSON gives them; every name and unit is the HTTP contract's."""

from typing import Literal, TypedDict


class ModelIdentityDict(TypedDict):
    """Exactly which model answered."""

    name: str
    version: int
    sha256: str
    engine: str
    precision: str


class MetadataSourceDict(TypedDict):
    """Where each fact comes from."""

    age_years: str | None
    sex: str | None
    view_position: str | None


class MetadataDict(TypedDict):
    """What the file, or else the request, states."""

    age_years: float | None
    sex: Literal["M", "F", "O"] | None
    view_position: Literal["PA", "AP", "LATERAL"] | None
    source: MetadataSourceDict


class TtaDict(TypedDict):
    """How far the views' probabilities lie apart."""

    views: int
    spread: float


class NoveltyDict(TypedDict):
    """How far the image lies from those that the model learned from."""

    score: float
    limit: float
    is_novel: bool


class WarningDict(TypedDict):
    """One thing that weakens the answer."""

    code: str
    detail: str


class ProcessingDict(TypedDict):
    """What the service found and did to the pixels."""

    format: Literal["dicom", "png", "jpeg"]
    transfer_syntax: str | None
    rows: int
    columns: int
    inverted: bool
    intensity: Literal["identity", "window", "lut", "percentile"]
    orientation: Literal[
        "as_stored",
        "mirrored",
        "rotated_180",
        "flipped",
        "transposed",
        "rotated_90",
        "transversed",
        "rotated_270",
    ]
    preprocess: str


class HeatmapDict(TypedDict):
    """A picture of the evidence over the radiograph; `data` is base64."""

    media_type: Literal["image/png"]
    data: str


class TimingsDict(TypedDict):
    """Where the service's time went, in milliseconds."""

    decode: float
    queue: float
    run: float
    total: float


class PredictionDict(TypedDict):
    """What a model says of one radiograph."""

    request_id: str
    model: ModelIdentityDict
    finding: str
    probability: float
    label: str
    threshold: float
    operating_point: str
    metadata: MetadataDict
    tta: TtaDict | None
    novelty: NoveltyDict
    warnings: list[WarningDict]
    processing: ProcessingDict
    heatmap: HeatmapDict | None
    timings_ms: TimingsDict
