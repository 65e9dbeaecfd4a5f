"""The model versions in `model_store/`, and those of them that answer.

The highest whole version of a model (schema, hashes, golden check) is current. A bad version is
refused with a reason, and the next lower one is tried.

    look       list the files of the store: names, sizes, times; blocks
    prepare    open the new versions of one model; blocks, changes nothing
    switch     let a prepared model answer, on the event loop, between two requests

A current version is replaced by a good one only. It stays in memory and answers if a new version is
bad, if its own files are damaged, or if the store can't be reached.
"""

import asyncio
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from app.errors import NotReady, UnknownModel
from app.models.card import render_card
from app.models.execution_plan import ExecutionPlan
from app.models.opening_watchdog import OpeningWatch
from cxr.bundle import Bundle, is_version, read_stored_bundle
from cxr.errors import CxrError
from cxr.graph import Graph
from cxr.graph.runtime import Cancellation
from cxr.manifest import SLUG, Manifest

logger = logging.getLogger("cxr.store")

_MAX_REASON = 500

Mark = tuple[tuple[str, int, int, int], ...]
"""Name, size, and times of content and inode (ns) of each file of a version."""

Marks = Mapping[int, Mark]
"""The versions in a model's folder, and their files."""


class VersionOpener(Protocol):
    """Opens the graph of a bundle: `Tuner` in this process, or another process's."""

    def open(
        self, bundle: Bundle, cancellation: Cancellation | None = None
    ) -> tuple[Graph, ExecutionPlan]:
        """Open, prove and warm a bundle's graph; blocks. Raises `BundleError`."""
        ...


@dataclass(eq=False, slots=True)
class ServedVersion:
    """A version that answers: its bundle, its open graph, and the number of its users."""

    bundle: Bundle
    graph: Graph
    plan: ExecutionPlan
    card_html: str = ""
    """The model card as HTML; empty if there is none."""
    leases: int = field(default=0, init=False)
    _given_back: asyncio.Event = field(default_factory=asyncio.Event, init=False, repr=False)

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.bundle.manifest

    @contextmanager
    def lease(self) -> Iterator[None]:
        """Hold the version, so that it is not closed meanwhile."""
        self.leases += 1
        try:
            yield
        finally:
            self.leases -= 1
            self._given_back.set()

    async def wait_until_free(self) -> None:
        """Wait until no request holds the version."""
        while self.leases:
            self._given_back.clear()
            await self._given_back.wait()


@dataclass(slots=True)
class StoredModel:
    """One model: the versions in its folder, the current one, and reasons of refusals."""

    name: str
    marks: Marks
    """The files on which this state is based."""
    current: ServedVersion | None = None
    refused: dict[int, str] = field(default_factory=dict)

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions in the folder, highest first."""
        return tuple(sorted(self.marks, reverse=True))

    @property
    def refusal_reasons(self) -> list[str]:
        """Reasons for which versions are refused."""
        return [
            f"{self.name} version {version} is refused: {why}"
            for version, why in self.refused.items()
        ]


class ModelStore:
    """The models of one folder. `load` reads them; `prepare` and `switch` exchange versions."""

    def __init__(
        self, path: Path, opener: VersionOpener, watch: OpeningWatch, *, default_model: str = ""
    ) -> None:
        """Take the folder, what opens graphs, what watches that, and the model of most requests."""
        self._path = path
        self._opener = opener
        self._watch = watch
        self._default_model = default_model
        self._models: dict[str, StoredModel] = {}

    @property
    def models(self) -> tuple[StoredModel, ...]:
        """All models by name, served or not."""
        return tuple(self._models[name] for name in sorted(self._models))

    @property
    def refusal_reasons(self) -> list[str]:
        """Reasons for which versions are refused, of all models."""
        return [reason for model in self.models for reason in model.refusal_reasons]

    @property
    def notes(self) -> list[str]:
        """Reasons of refusals, and the opening of a version that takes long."""
        return self.refusal_reasons + self._watch.notes

    def look(self) -> dict[str, Marks]:
        """Return the versions in the folder, by model; blocks.

        A folder whose name no model may have is ignored, as lost+found.
        """
        folders = _folders(self._path)
        marks = {
            folder.name: {
                int(entry.name): _mark(entry)
                for entry in _folders(folder)
                if is_version(entry.name)
            }
            for folder in folders
            if SLUG.fullmatch(folder.name)
        }
        return {name: versions for name, versions in marks.items() if versions}

    def load(self) -> None:
        """Open the best version of each model; blocks."""
        for name, marks in self.look().items():
            self.switch(self.prepare(name, marks))

    def prepare(self, name: str, marks: Marks) -> StoredModel:
        """Open the best version of a model beside the current one; blocks, and changes nothing.

        The current version and refused ones are not opened again while their files are the same.
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
        """Let a prepared model answer. Return the version that it replaces, which may be in use."""
        before = self._models.pop(after.name, StoredModel(after.name, {}))
        if after.marks or after.current:
            self._models[after.name] = after
        return before.current if before.current is not after.current else None

    def model(self, name: str) -> StoredModel:
        """Return a model's state; raise `UnknownModel`."""
        try:
            return self._models[name]
        except KeyError as exc:
            known = ", ".join(sorted(self._models)) or "none"
            raise UnknownModel(f"There is no model of this name. Known are: {known}.") from exc

    def current(self, name: str) -> ServedVersion:
        """Return a model's current version; raise `UnknownModel` or `NotReady`."""
        model = self._models.get(name)
        if model is None and name == self._default_model:
            raise NotReady(f"The store has no model named {name}.", retry_after_s=30)
        version = self.model(name).current
        if version is None:
            raise NotReady(f"No good version of {name} is in the store.", retry_after_s=30)
        return version

    @contextmanager
    def lease(self, name: str) -> Iterator[ServedVersion]:
        """Hold the current version for one request; raise as `current` does."""
        version = self.current(name)
        with version.lease():
            yield version

    def faults(self, name: str) -> list[str]:
        """Return the reasons why a model is not served; empty if it is."""
        model = self._models.get(name)
        if model is None:
            return [f"The store has no model named {name}."]
        return [] if model.current is not None else model.refusal_reasons

    def _try_open(self, model: StoredModel, version: int) -> ServedVersion | None:
        """Open a version, or note why it is refused."""
        facts = {"model": model.name, "version": version}
        cancellation: Cancellation | None = None
        logger.info("a bundle is opened", extra=facts)
        try:
            with self._watch.watch(model.name, version) as cancellation:
                opened = open_version(self._path, model.name, version, self._opener, cancellation)
        except Exception as exc:  # whatever is wrong with a bundle, the others must be served
            reason = refusal_reason(exc, cancellation)
            model.refused[version] = reason
            logger.warning("bundle refused", extra={**facts, "reason": reason})
            return None
        logger.info("bundle opened", extra={**facts, "engine": opened.graph.engine})
        return opened


def open_version(
    store: Path, name: str, version: int, opener: VersionOpener, cancellation: Cancellation
) -> ServedVersion:
    """Read, open and prove one version; blocks. Raises `BundleError`, or whatever an engine
    raises.
    """
    bundle = read_stored_bundle(store, name, version)
    graph, plan = opener.open(bundle, cancellation)
    return ServedVersion(bundle, graph, plan, render_card(bundle.card))


def refusal_reason(error: Exception, cancellation: Cancellation | None) -> str:
    """Say why a version is refused, in printable text of limited length."""
    if cancellation is not None and cancellation.is_cancelled:
        return cancellation.reason
    if not isinstance(error, CxrError):
        return f"it can't be opened: {type(error).__name__}"
    text = str(error)[:_MAX_REASON]
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _folders(path: Path) -> list[Path]:
    """Return the folders in a folder by name; none if it is gone or can't be read."""
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir())
    except OSError:
        return []


def _mark(folder: Path) -> Mark:
    """Return a version's files as they are now, or nothing if one vanishes meanwhile."""
    with suppress(OSError), os.scandir(folder) as entries:
        facts = ((entry.name, entry.stat()) for entry in entries)
        return tuple(
            sorted(
                (name, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns) for name, facts in facts
            )
        )
    return ()
