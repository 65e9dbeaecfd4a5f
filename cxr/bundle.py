"""What a model bundle is: the manifest's schema; read, verify, write.

    model_store/<model>/<version>/
        bundle.json     this schema
        model.onnx      the graph, one file
        golden.npz      made phantoms, their outputs, a tolerance for each engine and precision
        metrics.json    what `training evaluate` measured
        MODEL_CARD.md   the same for people
        splits.csv      which training image lay in which fold

Nothing is ever unpickled.  Writing is atomic: a version is there whole or not at all.

Shape suffixes: N images, H and W input rows and columns, h and w map rows and columns.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from cxr.errors import BundleError
from cxr.interpret import InterpretSpec, Part
from cxr.metadata_features import COLUMNS
from cxr.preprocess import PreprocessSpec

SCHEMA: Literal["cxr-bundle/1"] = "cxr-bundle/1"
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Slug = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]{0,63}$")]
Version = Annotated[int, Field(ge=1)]


class TrainingData(Part):
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


class Parity(Part):
    """How far a graph file's outputs lie from the torch network's, measured at export."""

    images: int
    max_logit_error: float
    max_cam_error: float
    max_novelty_error: float
    max_cam_identity_error: float
    max_batch_error: float


class GraphFile(Part):
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


class FastPrecision(Part):
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
    """`bundle.json`: everything that serving must know of a model."""

    schema_: Literal["cxr-bundle/1"] = Field(SCHEMA, alias="schema")
    model: Slug
    version: Version
    input_size: Annotated[int, Field(ge=32, le=1024)]
    preprocess: PreprocessSpec
    metadata: tuple[str, ...] = ()
    """Columns of the graph's second input, in order; none where it reads the image alone."""
    intended_use: str
    limits: str
    metrics: dict[str, Any]
    """As in metrics.json: out-of-fold or held-out figures with intervals, and what they were
    measured on."""
    training_data: TrainingData
    recipe: dict[str, Any]
    command: str
    git_commit: str
    tools: dict[str, str]
    graphs: Annotated[tuple[GraphFile, ...], Field(min_length=1)]
    fast: FastPrecision | None = None
    """Whether `CXR_PRECISION=fast` may serve this model; None if that was not measured, or cost
    too much."""

    @model_validator(mode="after")
    def _files_agree(self) -> Self:
        if self.input_size != self.preprocess.size:
            raise ValueError("input_size and preprocess.size differ")
        if self.metadata not in ((), COLUMNS):
            raise ValueError("the columns of metadata are not known to this version")
        if self.graphs[0].precision != "fp32":
            raise ValueError("the first graph is not the fp32 one")
        return self


@dataclass(frozen=True, slots=True)
class Golden:
    """Made phantoms and the right answers to them.

    `image_NHW` is uint8; the outputs are float32.  `tolerances` maps
    "engine/precision" (as in "onnxruntime-cpu/fp32") to the largest error,
    relative to max(1, |value|).
    """

    image_NHW: NDArray[np.uint8]
    logit_N: NDArray[np.float32]
    cam_Nhw: NDArray[np.float32]
    novelty_N: NDArray[np.float32]
    tolerances: Mapping[str, float]
    metadata_NM: NDArray[np.float32] | None = None
    """What is told beside the images, to graphs that read it."""

    def tolerance(self, engine: str, precision: str) -> float:
        """Return the tolerance of an engine and precision; raises `BundleError` where none is
        stated.
        """
        try:
            return self.tolerances[f"{engine}/{precision}"]
        except KeyError as exc:
            raise BundleError(
                f"golden.npz states no tolerance for {engine} in {precision}"
            ) from exc

    def save(self, path: Path) -> None:
        """Write `golden.npz`."""
        names = sorted(self.tolerances)
        arrays: dict[str, NDArray[Any]] = {
            "image": self.image_NHW, "logit": self.logit_N, "cam": self.cam_Nhw,
            "novelty": self.novelty_N,
            "tolerance_names": np.array(names),
            "tolerances": np.array([self.tolerances[name] for name in names]),
        }  # fmt: skip
        if self.metadata_NM is not None:
            arrays["metadata"] = self.metadata_NM
        np.savez_compressed(path, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read `golden.npz`; raises `BundleError`."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                tolerances = zip(
                    arrays["tolerance_names"].tolist(), arrays["tolerances"].tolist(), strict=True
                )
                beside = arrays.get("metadata")
                return cls(
                    arrays["image"],
                    arrays["logit"],
                    arrays["cam"],
                    arrays["novelty"],
                    dict(tolerances),
                    beside,
                )
        except (OSError, EOFError, ValueError, KeyError, BadZipFile) as exc:
            raise BundleError(f"golden.npz can't be read: {type(exc).__name__}") from exc


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle on disk whose manifest was read and whose files match their hashes."""

    path: Path
    manifest: Manifest
    golden: Golden

    @property
    def graph_path(self) -> Path:
        """The fp32 graph's file."""
        return self.path / self.manifest.graphs[0].file

    @property
    def sha256(self) -> str:
        """The fp32 graph's hash: the model's identity in every answer."""
        return self.manifest.graphs[0].sha256

    @property
    def card(self) -> str:
        """The text of MODEL_CARD.md, with a mark in place of what is no UTF-8; raises `OSError`
        where it can't be read.
        """
        return (self.path / "MODEL_CARD.md").read_text(encoding="utf-8", errors="replace")


def read_bundle(path: Path) -> Bundle:
    """Read `<model>/<version>/` and verify every graph's hash; raises `BundleError`."""
    manifest = _read_manifest(path / "bundle.json")
    for graph in manifest.graphs:
        _verify(path / graph.file, graph)
    return Bundle(path, manifest, Golden.load(path / "golden.npz"))


_NAME: TypeAdapter[tuple[str, int]] = TypeAdapter(tuple[Slug, Version])
"""Of a bundle in a store."""


@contextmanager
def write_bundle(store: Path, model: str, version: int) -> Iterator[Path]:
    """Return an empty folder to fill; it becomes `store/model/version` if the block ends well.

    Raises `BundleError` where that version is there already, for versions are never changed, and
    for a name or number that none may have.
    """
    try:
        _NAME.validate_python((model, version))
    except ValidationError as exc:
        raise BundleError(
            f"{model!r} {version}: a model's name is of a-z, 0-9, - and _, its versions count "
            f"from 1"
        ) from exc
    target = store / model / str(version)
    if target.exists():
        raise BundleError(f"{model} version {version} exists already; export under the next number")
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=target.parent))
    try:
        yield draft
        draft.chmod(0o755)
        draft.replace(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_manifest(path: Path) -> Manifest:
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as exc:
        raise BundleError("bundle.json can't be read") from exc
    except ValidationError as exc:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in exc.errors()[:3]
        )
        raise BundleError(f"bundle.json breaks its schema: {faults}") from exc


def _verify(path: Path, graph: GraphFile) -> None:
    if path.name != graph.file:
        raise BundleError("bundle.json names a graph outside its folder")
    try:
        digest = file_sha256(path)
    except OSError as exc:
        raise BundleError(f"{graph.file} can't be read") from exc
    if digest != graph.sha256:
        raise BundleError(f"{graph.file} does not match its hash in bundle.json")


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write `bundle.json`, readable by people."""
    path.write_text(
        json.dumps(manifest.model_dump(mode="json", by_alias=True), indent=2) + "\n",
        encoding="utf-8",
    )
