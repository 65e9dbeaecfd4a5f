"""A model bundle on disk: read, verify, write.

    model_store/<model>/<version>/
        bundle.json     the manifest (`cxr.manifest`)
        model.onnx      the graph, one file
        golden.npz      phantoms and the answers to them (`cxr.golden_answers`)
        metrics.json    what `training evaluate` measured
        MODEL_CARD.md   the same for people
        splits.csv      which training image lay in which fold

Nothing is ever unpickled.  Writing is atomic: a version is there whole or not at all.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from cxr.errors import BundleError
from cxr.golden_answers import MAX_FILE_BYTES as GOLDEN_BYTES
from cxr.golden_answers import Golden
from cxr.manifest import GraphFile, Manifest, Slug, Version, read_manifest
from cxr.regular_file import read_regular_file

_MAX_GRAPH_BYTES = 512 * 2**20
_MAX_CARD_BYTES = 128 * 1024


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle on disk whose manifest was read and whose files match their hashes."""

    path: Path
    manifest: Manifest
    golden: Golden
    card: str = ""
    """The text of MODEL_CARD.md; empty if there is none."""

    @property
    def graph_path(self) -> Path:
        """The fp32 graph's file."""
        return self.path / self.manifest.graphs[0].file

    @property
    def sha256(self) -> str:
        """The fp32 graph's hash: the model's identity in every answer."""
        return self.manifest.graphs[0].sha256

    def read_graph(self, graph: GraphFile) -> bytes:
        """Return the content of a graph file that matches its hash; raise `BundleError`."""
        if Path(graph.file).name != graph.file:
            raise BundleError("bundle.json names a graph outside its folder")
        try:
            data = read_regular_file(self.path / graph.file, max_bytes=_MAX_GRAPH_BYTES)
        except OSError as exc:
            raise BundleError(f"{graph.file} can't be read") from exc
        if hashlib.sha256(data).hexdigest() != graph.sha256:
            raise BundleError(f"{graph.file} does not match its hash in bundle.json")
        return data


def read_bundle(path: Path) -> Bundle:
    """Read `<model>/<version>/` and verify all hashes; raise `BundleError`."""
    manifest = read_manifest(path / "bundle.json")
    bundle = Bundle(path, manifest, _read_golden(path / "golden.npz", manifest), _read_card(path))
    for graph in manifest.graphs:
        bundle.read_graph(graph)
    return bundle


def read_stored_bundle(store: Path, model: str, version: int) -> Bundle:
    """Read a version of a model from its store and verify that it is that one, and its hashes.

    Raises:
        BundleError: it can't be read, is damaged, or names another model or version.
    """
    bundle = read_bundle(store / model / str(version))
    if (bundle.manifest.model, bundle.manifest.version) != (model, version):
        raise BundleError("bundle.json names another model or version than its folder")
    return bundle


def is_version(name: str) -> bool:
    """Return whether a folder's name in a store is a version number."""
    return name.isascii() and name.isdigit() and not name.startswith("0")


def _read_golden(path: Path, manifest: Manifest) -> Golden:
    try:
        data = read_regular_file(path, max_bytes=GOLDEN_BYTES)
    except OSError as exc:
        raise BundleError("golden.npz can't be read") from exc
    if manifest.golden_sha256 not in (None, hashlib.sha256(data).hexdigest()):
        raise BundleError("golden.npz does not match its hash in bundle.json")
    return Golden.parse(data)


def _read_card(folder: Path) -> str:
    """Return MODEL_CARD.md, or an empty text if it is missing, a link or too large."""
    try:
        data = read_regular_file(folder / "MODEL_CARD.md", max_bytes=_MAX_CARD_BYTES)
    except OSError:
        return ""
    return data.decode("utf-8", errors="replace")


_NAME: TypeAdapter[tuple[str, int]] = TypeAdapter(tuple[Slug, Version])
"""Of a bundle in a store."""


@contextmanager
def write_bundle(store: Path, model: str, version: int) -> Iterator[Path]:
    """Yield an empty folder to fill; it becomes `store/model/version` if the block ends well.

    Raises `BundleError` if that version exists already, for versions are never changed, or if the
    name or number is not allowed.
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
