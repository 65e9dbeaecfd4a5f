"""Poll the store, and exchange model versions while the service runs.

A change counts if two polls in a row saw the same files, so that a copy can finish. One thread of
low priority opens, checks and warms a new version. The new version then answers new requests; the
old one finishes its own and is closed. The next change is taken up only then, so no more than two
versions of one model are ever in memory.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial

from app.cpu import step_back
from app.inference.classifier import Classifier
from app.models.freed_memory import return_freed_memory
from app.models.store import Marks
from app.settings import Settings

_NICENESS = 15
"""Beside busy decoders and runs, the thread gets about a tenth of their processor time."""

logger = logging.getLogger("cxr.watcher")


@asynccontextmanager
async def watching(classifier: Classifier, settings: Settings) -> AsyncIterator[None]:
    """Poll the store while the block runs, if the settings give an interval."""
    if not settings.store_poll_seconds:
        yield
        return
    # An engine's own threads would inherit the low priority and keep it while serving.
    initializer = (
        partial(step_back, _NICENESS) if _runs_on_our_threads(classifier, settings) else None
    )
    threads = ThreadPoolExecutor(1, thread_name_prefix="store", initializer=initializer)
    task = asyncio.create_task(
        Watcher(classifier, threads).run(settings.store_poll_seconds), name="store-watcher"
    )
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        threads.shutdown(wait=False)


def _runs_on_our_threads(classifier: Classifier, settings: Settings) -> bool:
    """Return whether a graph that is opened now makes no threads of its own."""
    plans = [model.current.plan for model in classifier.store.models if model.current is not None]
    is_plain = (settings.engine, settings.device) == ("onnxruntime", "cpu")
    return is_plain and bool(plans) and all(plan.threads == 1 for plan in plans)


class Watcher:
    """Keeps a classifier's models equal to its store; belongs to one event loop."""

    def __init__(self, classifier: Classifier, threads: ThreadPoolExecutor) -> None:
        self._classifier = classifier
        self._threads = threads
        self._seen: Mapping[str, Marks] = {}

    async def run(self, poll_seconds: float) -> None:
        """Poll for ever, at whole multiples of the interval.

        So all processes with one store exchange a version at about the same time.
        """
        while True:
            await asyncio.sleep(poll_seconds - time.time() % poll_seconds)
            try:
                await self.poll()
            except Exception:  # one bad look must not be the last
                logger.exception("the store could not be looked at")

    async def poll(self) -> None:
        """Poll once, and exchange the models whose files changed and then stayed the same."""
        loop, store = asyncio.get_running_loop(), self._classifier.store
        seen, before = await loop.run_in_executor(self._threads, store.look), self._seen
        self._seen = seen
        decided = {model.name: model.marks for model in store.models}
        for name in sorted(seen.keys() | decided.keys()):
            marks = seen.get(name, {})
            if marks == before.get(name, {}) and marks != decided.get(name, {}):
                retired = self._classifier.adopt(
                    await loop.run_in_executor(self._threads, store.prepare, name, marks)
                )
                if retired is not None:
                    await self._classifier.retire(retired)
                    del retired
                    await loop.run_in_executor(self._threads, return_freed_memory)
