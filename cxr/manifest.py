"""`bundle.json`: what a model bundle says of itself."""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_serializer, model_validator

from cxr.errors import BundleError
from cxr.interpret import ClosedModel, InterpretSpec
from cxr.metadata_features import COLUMNS
from cxr.metrics_schema import BundleMetrics
from cxr.preprocess import PreprocessSpec
from cxr.regular_file import read_regular_file
from cxr.study_schema import Study

SCHEMA: Literal["cxr-bundle/1"] = "cxr-bundle/1"
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
SLUG = re.compile("[a-z0-9][a-z0-9_-]{0,63}")
"""A model's name; match the whole text."""
Slug = Annotated[str, Field(pattern=f"^{SLUG.pattern}$")]
Version = Annotated[int, Field(ge=1)]

_MAX_BYTES = 4 * 2**20


class TrainingData(ClosedModel):
    """What the model learned from: a fingerprint, never a path."""

    name: str
    licence: str
    images: int
    positives: int
    person_groups: int
    sha256: Sha256
    """Of the sorted SHA-256 of all image files, and their labels."""
    splits_sha256: Sha256

    @property
    def prevalence(self) -> float | None:
        """The share of positives that probabilities refer to; None if the images are all of one
        class.
        """
        return self.positives / self.images if 0 < self.positives < self.images else None


class Parity(ClosedModel):
    """How far a graph file's outputs lie from the torch network's, measured at export."""

    images: int
    max_logit_error: float
    max_cam_error: float
    max_novelty_error: float
    max_cam_identity_error: float
    max_batch_error: float


class GraphFile(ClosedModel):
    """One graph file of the bundle."""

    file: str
    precision: Literal["fp32", "fp16", "int8"]
    sha256: Sha256
    bytes: int
    opset: int
    parity: Parity


MAX_FAST_AUROC_CHANGE = 0.003
MAX_FAST_FLIPS = 0.01
"""What a fast precision may cost, and no more: change of the AUROC, and share of changed labels."""


class FastPrecision(ClosedModel):
    """A faster and less exact way to run the fp32 graph, allowed because it was measured on images
    that the network had not learned from.
    """

    engine: str
    """As answers name it: "openvino-cpu"."""
    precision: Literal["bf16", "fp16"]
    """bf16 is the fp32 graph run in it; fp16 is the bundle's own fp16 graph."""
    images: Annotated[int, Field(ge=1)]
    auroc_change: Annotated[float, Field(ge=-MAX_FAST_AUROC_CHANGE, le=MAX_FAST_AUROC_CHANGE)]
    """AUROC at this precision minus AUROC at fp32."""
    flips: Annotated[float, Field(ge=0, le=MAX_FAST_FLIPS)]
    """Largest share of images, over all operating points, whose label is another than at fp32."""
    instructions: str
    """The processor's instructions that it ran on, as in "avx512_bf16"."""
    tool: str
    """Engine and version that it was measured with."""


class Manifest(InterpretSpec):
    """`bundle.json`: everything that the service needs to know of a model."""

    schema_: Literal["cxr-bundle/1"] = Field(SCHEMA, alias="schema")
    model: Slug
    version: Version
    input_size: Annotated[int, Field(ge=32, le=1024)]
    preprocess: PreprocessSpec
    metadata: tuple[str, ...] = ()
    """Columns of the graph's second input, in order; empty if it reads the image alone."""
    intended_use: str
    limits: str
    metrics: BundleMetrics
    """As in metrics.json: out-of-fold or held-out figures with intervals, and what they were
    measured on."""
    training_data: TrainingData
    study: Study | None = None
    """Who was measured, and what was stated of the data; None in bundles that were written before
    it was asked for."""
    recipe: dict[str, Any]
    command: str
    git_commit: str
    tools: dict[str, str]
    graphs: Annotated[tuple[GraphFile, ...], Field(min_length=1)]
    golden_sha256: Sha256 | None = None
    """Of golden.npz; None in bundles that were written before it was stated."""
    signature: Annotated[str, Field(max_length=4096)] | None = None
    """Place for a signature of the rest of this file. Nothing writes or checks one yet."""
    calibration_prevalence: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Share of positives that probabilities refer to, after a recalibration for one site."""
    fast: FastPrecision | None = None
    """Whether `CXR_PRECISION=fast` may serve this model; None if that was not measured, or cost
    too much."""

    @property
    def prevalence(self) -> float | None:
        """The share of positives that probabilities refer to; None if there is none to shift
        from.
        """
        return self.calibration_prevalence or self.training_data.prevalence

    @field_serializer("metrics")
    def _without_unset(self, metrics: BundleMetrics) -> dict[str, Any]:
        """Write the keys that metrics.json has, and no others."""
        return metrics.as_json()

    @model_validator(mode="after")
    def _files_agree(self) -> Self:
        if self.input_size != self.preprocess.size:
            raise ValueError("input_size and preprocess.size differ")
        if self.metadata not in ((), COLUMNS):
            raise ValueError("the columns of metadata are not known to this version")
        if self.graphs[0].precision != "fp32":
            raise ValueError("the first graph is not the fp32 one")
        return self


def read_manifest(path: Path) -> Manifest:
    """Read `bundle.json`; raises `BundleError`."""
    try:
        return Manifest.model_validate_json(read_regular_file(path, max_bytes=_MAX_BYTES))
    except OSError as exc:
        raise BundleError("bundle.json can't be read") from exc
    except ValidationError as exc:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in exc.errors()[:3]
        )
        raise BundleError(f"bundle.json breaks its schema: {faults}") from exc


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write `bundle.json`, readable by people."""
    path.write_text(
        json.dumps(manifest.model_dump(mode="json", by_alias=True), indent=2) + "\n",
        encoding="utf-8",
    )
