"""The versions that are open in the device process, each as long as a serving process needs it."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from app.inference.batcher import Batcher
from app.inference.device.remote_graph import RemoteShape
from app.inference.device.run_watch import RunWatch, WatchedGraph
from app.inference.device.version_messages import OpenedVersion, WantedVersion
from app.models.opening_watchdog import OpeningWatch
from app.models.store import ServedVersion, open_version, refusal_reason
from app.models.tuning import Tuner
from app.settings import Settings
from app.telemetry import Metrics
from cxr.errors import BundleError
from cxr.graph.runtime import Cancellation

logger = logging.getLogger("cxr.device")

_CAPACITY = 2**31
"""Serving processes bound what waits."""


@dataclass(eq=False, slots=True)
class OpenVersion:
    """A version that is open here, and how many serving processes use it."""

    wanted: WantedVersion
    batcher: Batcher
    shape: RemoteShape
    opened: OpenedVersion
    num_users: int = field(default=0, init=False)


class OpenVersions:
    """Opens each version once for all serving processes; belongs to one event loop."""

    def __init__(self, settings: Settings, metrics: Metrics, tuner: Tuner) -> None:
        self.run_watch = RunWatch()
        self._settings = settings
        self._metrics = metrics
        self._tuner = tuner
        self._opening_watch = OpeningWatch(settings.open_seconds, metrics.bundle_opening.set)
        self._one_at_a_time = asyncio.Lock()
        self._open: dict[WantedVersion, OpenVersion] = {}
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="store")

    @property
    def fault(self) -> str | None:
        """Why a version will never answer again; None while all do."""
        return next((one.batcher.fault for one in self._open.values() if one.batcher.fault), None)

    async def take(self, wanted: WantedVersion) -> OpenVersion | str:
        """Return a version for one more user, opened if it was not, or why it is refused."""
        async with self._one_at_a_time:
            version = self._open.get(wanted) or await self._open_new(wanted)
        if isinstance(version, OpenVersion):
            version.num_users += 1
        return version

    async def give_back(self, version: OpenVersion) -> None:
        """Count a user less, and close the version after the last one."""
        version.num_users -= 1
        if not version.num_users:
            del self._open[version.wanted]
            await version.batcher.close()

    async def _open_new(self, wanted: WantedVersion) -> OpenVersion | str:
        loop = asyncio.get_running_loop()
        opened = await loop.run_in_executor(self._threads, partial(self._load, wanted))
        if isinstance(opened, str):
            logger.warning(
                "bundle refused",
                extra={"model": wanted.model, "version": wanted.version, "reason": opened},
            )
            return opened
        graph = WatchedGraph(opened.graph, self.run_watch)
        version = OpenVersion(
            wanted,
            Batcher(graph, self._metrics, opened.plan, capacity=_CAPACITY),
            RemoteShape.of(opened.bundle),
            OpenedVersion(
                engine=graph.engine,
                precision=graph.precision,
                num_facts=graph.num_facts,
                plan=opened.plan,
            ),
        )
        self._open[wanted] = version
        return version

    def _load(self, wanted: WantedVersion) -> ServedVersion | str:
        """Open a version in this thread, or say why it is refused."""
        cancellation: Cancellation | None = None
        try:
            with self._opening_watch.watch(wanted.model, wanted.version) as cancellation:
                opened = open_version(
                    self._settings.store, wanted.model, wanted.version, self._tuner, cancellation
                )
            if WantedVersion.of(opened.bundle) != wanted:
                raise BundleError("bundle.json was changed while it was opened")
        except Exception as exc:  # whatever is wrong with a bundle, the others must be served
            return refusal_reason(exc, cancellation)
        return opened
