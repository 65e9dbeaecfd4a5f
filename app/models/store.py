"""From the folders of `model_store/` to the model versions that answer.

Of each model the highest version that is whole (schema, hashes, golden check)
is current.  A bad one is passed over with its reason, and the next lower is tried.

    look       what stands in the folder now, told apart by file names, sizes and times; blocks
    prepare    open what is new in a model's folder, beside what serves; blocks, changes nothing
    switch     put what was prepared in place, on the event loop, between two requests

A version that serves is given up only for a good one: a new one that is bad, files
spoilt in place and a store that can't be reached all leave it in memory, answering.
"""

import asyncio
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from app.errors import NotReady, UnknownModel
from app.models.tuning import ExecutionPlan, Tuner
from cxr.bundle import Bundle, read_bundle
from cxr.errors import BundleError, CxrError
from cxr.graph import Graph
from cxr.manifest import Manifest

logger = logging.getLogger("cxr.store")

Mark = tuple[tuple[str, int, int, int], ...]
"""What tells that a version's files changed: each one's name, size, and times of its content and
its inode in ns."""

Marks = Mapping[int, Mark]
"""The versions in a model's folder."""


@dataclass(eq=False, slots=True)
class ServedVersion:
    """A version that answers: its bundle, its open graph, and how many requests hold it."""

    bundle: Bundle
    graph: Graph
    plan: ExecutionPlan
    leases: int = field(default=0, init=False)
    _given_back: asyncio.Event = field(default_factory=asyncio.Event, init=False, repr=False)

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self.bundle.manifest

    @contextmanager
    def lease(self) -> Iterator[None]:
        """Hold the version, so that it is not closed under its user."""
        self.leases += 1
        try:
            yield
        finally:
            self.leases -= 1
            self._given_back.set()

    async def wait_until_free(self) -> None:
        """Wait until nobody holds the version."""
        while self.leases:
            self._given_back.clear()
            await self._given_back.wait()


@dataclass(slots=True)
class StoredModel:
    """One model's folder: the versions it has, the one that is current, and why others were
    refused.
    """

    name: str
    marks: Marks
    """The files for which this was decided."""
    current: ServedVersion | None = None
    refused: dict[int, str] = field(default_factory=dict)

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions in the folder, highest first."""
        return tuple(sorted(self.marks, reverse=True))

    @property
    def refusal_reasons(self) -> list[str]:
        """Say why each refused version is."""
        return [
            f"{self.name} version {version} is refused: {why}"
            for version, why in self.refused.items()
        ]


class ModelStore:
    """The models of one folder: read by `load`, asked for by every request, kept up by `prepare`
    and `switch`.
    """

    def __init__(self, path: Path, tuner: Tuner) -> None:
        self._path = path
        self._tuner = tuner
        self._models: dict[str, StoredModel] = {}

    @property
    def models(self) -> tuple[StoredModel, ...]:
        """All models by name, served or not."""
        return tuple(self._models[name] for name in sorted(self._models))

    @property
    def refusal_reasons(self) -> list[str]:
        """Say why each refused version of every model is."""
        return [reason for model in self.models for reason in model.refusal_reasons]

    def look(self) -> dict[str, Marks]:
        """See which versions of which models stand in the folder; blocks."""
        folders = _folders(self._path)
        marks = {
            folder.name: {
                int(entry.name): _mark(entry)
                for entry in _folders(folder)
                if _is_version(entry.name)
            }
            for folder in folders
        }
        return {name: versions for name, versions in marks.items() if versions}

    def load(self) -> None:
        """Open the best version of each model, before anybody asks; blocks for as long as that
        takes.
        """
        for name, marks in self.look().items():
            self.switch(self.prepare(name, marks))

    def prepare(self, name: str, marks: Marks) -> StoredModel:
        """Open the best version in a model's folder, beside the one that serves; blocks, and
        changes nothing.

        Neither the version that serves nor one that was refused is opened again while its files are
        the same.
        """
        before = self._models.get(name, StoredModel(name, {}))
        after = StoredModel(name, marks)
        for version in after.versions:
            is_same = marks[version] == before.marks.get(version)
            is_current = before.current is not None and before.current.manifest.version == version
            if is_same and version in before.refused:
                after.refused[version] = before.refused[version]
            elif not (is_same and is_current):
                after.current = self._try_open(after, version)
            if after.current is not None or is_current:
                break
        after.current = after.current or before.current
        return after

    def switch(self, after: StoredModel) -> ServedVersion | None:
        """Let a model's prepared state serve; gives the version that serves no more, which its
        holders still use.
        """
        before = self._models.pop(after.name, StoredModel(after.name, {}))
        if after.marks or after.current:
            self._models[after.name] = after
        return before.current if before.current is not after.current else None

    def model(self, name: str) -> StoredModel:
        """Return a model's state; raises `UnknownModel`."""
        try:
            return self._models[name]
        except KeyError as exc:
            known = ", ".join(sorted(self._models)) or "none"
            raise UnknownModel(f"There is no model of this name. Known are: {known}.") from exc

    def current(self, name: str) -> ServedVersion:
        """Return the version that answers for a model; raises `UnknownModel` or `NotReady`."""
        version = self.model(name).current
        if version is None:
            raise NotReady(f"No good version of {name} is in the store.", retry_after_s=30)
        return version

    @contextmanager
    def lease(self, name: str) -> Iterator[ServedVersion]:
        """Hold the current version for one request, so that it is not closed under it; raises as
        `current`.
        """
        version = self.current(name)
        with version.lease():
            yield version

    def faults(self, name: str) -> list[str]:
        """Say why a model is not served; empty where it is."""
        model = self._models.get(name)
        if model is None:
            return [f"The store has no model named {name}."]
        return [] if model.current is not None else model.refusal_reasons

    def _try_open(self, model: StoredModel, version: int) -> ServedVersion | None:
        """Open a version, or note why it is refused."""
        facts = {"model": model.name, "version": version}
        try:
            opened = self._open(model.name, version)
        except Exception as exc:  # whatever is wrong with a bundle, the others must be served
            reason = (
                str(exc)
                if isinstance(exc, CxrError)
                else f"it can't be opened: {type(exc).__name__}"
            )
            model.refused[version] = reason
            logger.warning("bundle refused", extra={**facts, "reason": reason})
            return None
        logger.info("bundle opened", extra={**facts, "engine": opened.graph.engine})
        return opened

    def _open(self, name: str, version: int) -> ServedVersion:
        bundle = read_bundle(self._path / name / str(version))
        if (bundle.manifest.model, bundle.manifest.version) != (name, version):
            raise BundleError("bundle.json names another model or version than its folder")
        return ServedVersion(bundle, *self._tuner.open(bundle))


def _folders(path: Path) -> list[Path]:
    """List the folders in a folder by name; none where it is gone or can't be read."""
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir())
    except OSError:
        return []


def _mark(folder: Path) -> Mark:
    """Tell a version's files as they are now; one that vanishes meanwhile shows at the next
    look.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        facts = ((entry.name, entry.stat()) for entry in entries)
        return tuple(
            sorted(
                (name, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns) for name, facts in facts
            )
        )
    return ()


def _is_version(name: str) -> bool:
    """Tell a version's folder from a draft or anything else."""
    return name.isascii() and name.isdigit() and not name.startswith("0")
