"""One run, as its workers must know it: which model, which options, where the answers go."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from bulk.errors import BulkError
from bulk.sources import ArchiveSource
from cxr.bundle import Bundle, file_sha256, is_version, read_stored_bundle
from cxr.decode import DecodeLimits, ScopePolicy
from cxr.errors import BundleError
from cxr.graph.runtime import Engine

ROW_FORMAT = "2"
"""Changes if the meaning of a column does."""


@dataclass(frozen=True, slots=True)
class Options:
    """What decides about the content of a row, besides the file and the model."""

    tta: bool = False
    operating_point: str | None = None
    scope: ScopePolicy = "refuse"
    engine: Engine = "onnxruntime"
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    decode_seconds: float = 60.0
    """How long a codec that can be stopped may take over one file."""
    decode_memory_bytes: int = 1024 * 2**20


@dataclass(frozen=True, slots=True)
class Job:
    """One run, as the driver sends it to the workers."""

    source: ArchiveSource
    bundle_path: Path
    folder: Path
    """Where the parts lie: `OUT/model=<name>/version=<number>`."""
    options: Options
    identity: str
    """Hash of all that decides about a row, besides the file; equal identities give equal rows."""


def choose_bundle(store: Path, model: str, version: int | None) -> Bundle:
    """Read a model's highest version, or the one asked for, and verify its hashes.

    Raises:
        BulkError: there is none, or it is damaged. No other version is taken in silence.
    """
    folder = store / model
    found = sorted(int(path.name) for path in folder.glob("*") if is_version(path.name))
    if not found:
        raise BulkError(f"{store} has no model {model}")
    chosen = found[-1] if version is None else version
    if chosen not in found:
        raise BulkError(f"{model} has no version {chosen}; it has {', '.join(map(str, found))}")
    try:
        return read_stored_bundle(store, model, chosen)
    except BundleError as exc:
        raise BulkError(f"{model} version {chosen} can't be used: {exc}") from exc


def make_job(source: ArchiveSource, bundle: Bundle, out: Path, options: Options) -> Job:
    """Describe a run; raises `BulkError` if the model has no such operating point."""
    points = bundle.manifest.operating_points
    if options.operating_point not in (None, *points):
        raise BulkError(f"--operating-point must be one of {', '.join(points)}")
    manifest = bundle.manifest
    folder = out / f"model={manifest.model}" / f"version={manifest.version}"
    return Job(
        source, bundle.path.absolute(), folder.absolute(), options, identity(bundle, options)
    )


def identity(bundle: Bundle, options: Options) -> str:
    """Hash all that decides about a row, besides the file; equal identities give equal rows."""
    limits = options.limits
    content = [
        ROW_FORMAT,
        bundle.sha256,
        file_sha256(bundle.path / "bundle.json"),
        options.tta,
        options.operating_point,
        options.scope,
        options.engine,
        [limits.max_bytes, limits.max_pixels, limits.max_inflated_bytes],
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
