"""From the folders of `model_store/` to the model versions that answer.

Of each model the highest version that is whole (schema, hashes, golden check)
is current.  A bad one is passed over with its reason, and the next lower is tried.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from app.errors import NotReady, UnknownModel
from cxr.bundle import Bundle, Manifest, read_bundle
from cxr.errors import BundleError, CxrError
from cxr.graph import Device, Graph

logger = logging.getLogger("cxr.store")


class GraphOpener(Protocol):
    """Opens a bundle's graph and proves it; `cxr.graph.open_graph`, or a test's own."""

    def __call__(self, bundle: Bundle, *, device: Device, threads: int) -> Graph:
        """Open the graph; raises `BundleError`."""
        ...


@dataclass(eq=False, slots=True)
class ServedVersion:
    """A version that answers: its bundle, its open graph, and how many requests hold it."""

    bundle: Bundle
    graph: Graph
    leases: int = field(default=0, init=False)

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self.bundle.manifest


@dataclass(slots=True)
class StoredModel:
    """One model's folder: the versions it has, the one that is current, and why others were refused."""

    name: str
    versions: tuple[int, ...]
    """Highest first."""
    current: ServedVersion | None = None
    refused: dict[int, str] = field(default_factory=dict)


class ModelStore:
    """The models of one folder; read once by `load`, asked for by every request."""

    def __init__(self, path: Path, opener: GraphOpener, *, device: Device, threads: int, warm_sizes: tuple[int, ...]) -> None:
        self._path = path
        self._opener = opener
        self._device: Device = device
        self._threads = threads
        self._warm_sizes = warm_sizes
        self._models: dict[str, StoredModel] = {}

    @property
    def models(self) -> tuple[StoredModel, ...]:
        """All models by name, served or not."""
        return tuple(self._models[name] for name in sorted(self._models))

    def load(self) -> None:
        """Read the folder and open the best version of each model; blocks for as long as that takes."""
        for folder in sorted(self._path.iterdir()) if self._path.is_dir() else ():
            versions = _versions(folder)
            if versions:
                self._models[folder.name] = self._load_model(StoredModel(folder.name, versions))

    def model(self, name: str) -> StoredModel:
        """Give a model's state; raises `UnknownModel`."""
        try:
            return self._models[name]
        except KeyError as exc:
            known = ", ".join(sorted(self._models)) or "none"
            raise UnknownModel(f"There is no model of this name. Known are: {known}.") from exc

    def current(self, name: str) -> ServedVersion:
        """Give the version that answers for a model; raises `UnknownModel` or `NotReady`."""
        version = self.model(name).current
        if version is None:
            raise NotReady(f"No good version of {name} is in the store.", retry_after_s=30)
        return version

    @contextmanager
    def lease(self, name: str) -> Iterator[ServedVersion]:
        """Hold the current version for one request, so that it is not closed under it; raises as `current`."""
        version = self.current(name)
        version.leases += 1
        try:
            yield version
        finally:
            version.leases -= 1

    def faults(self, name: str) -> list[str]:
        """Say why a model is not served; empty where it is."""
        model = self._models.get(name)
        if model is None:
            return [f"The store has no model named {name}."]
        if model.current is not None:
            return []
        return [f"{name} version {version} is refused: {why}" for version, why in model.refused.items()]

    def _load_model(self, model: StoredModel) -> StoredModel:
        for version in model.versions:
            try:
                model.current = self._open(model.name, version)
            except Exception as exc:  # whatever is wrong with a bundle, the others must be served
                reason = str(exc) if isinstance(exc, CxrError) else f"it can't be opened: {type(exc).__name__}"
                model.refused[version] = reason
                logger.warning("bundle refused", extra={"model": model.name, "version": version, "reason": reason})
            else:
                logger.info(
                    "bundle served", extra={"model": model.name, "version": version, "engine": model.current.graph.engine}
                )
                return model
        return model

    def _open(self, name: str, version: int) -> ServedVersion:
        bundle = read_bundle(self._path / name / str(version))
        if (bundle.manifest.model, bundle.manifest.version) != (name, version):
            raise BundleError("bundle.json names another model or version than its folder")
        graph = self._opener(bundle, device=self._device, threads=self._threads)
        self._warm(graph, bundle.manifest.input_size)
        return ServedVersion(bundle, graph)

    def _warm(self, graph: Graph, size: int) -> None:
        """Run black images once at each size of a batch, so that no sender pays for a first run."""
        for count in self._warm_sizes:
            graph.run(np.zeros((count, size, size), np.uint8))


def _versions(folder: Path) -> tuple[int, ...]:
    """List a model folder's versions, highest first; drafts and other files are no versions."""
    if not folder.is_dir():
        return ()
    names = (entry.name for entry in folder.iterdir() if entry.is_dir())
    return tuple(sorted((int(name) for name in names if _is_version(name)), reverse=True))


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit() and not name.startswith("0")
