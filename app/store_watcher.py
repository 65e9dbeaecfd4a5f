"""Look at the store again and again, and swap what has changed in it under the running service.

A model's folder is acted on when two looks in a row saw the same: files that are still
being copied are waited for.  What is new is opened, proved and warmed in one thread of
low priority beside what serves, then put in place between two requests; the version
before answers those who hold it, and goes.  Only then is the next change taken up, so
that no more than two versions of one model are ever in memory.
"""

import asyncio
import ctypes
import logging
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial

from app.cpu import step_back
from app.inference.classifier import Classifier
from app.models.store import Marks
from app.settings import Settings

_NICENESS = 15
"""A tenth of the processor's time that decoding and running get, where both want it."""

logger = logging.getLogger("cxr.watcher")


@asynccontextmanager
async def watching(classifier: Classifier, settings: Settings) -> AsyncIterator[None]:
    """Keep up with the store while the block runs, if the settings say how often."""
    if not settings.store_poll_seconds:
        yield
        return
    # An engine's own threads would inherit the low priority, and keep it while they serve.
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
    """Tell whether a graph that is opened now will make no threads of its own; it is run as those
    that serve are.
    """
    plans = [model.current.plan for model in classifier.store.models if model.current is not None]
    is_plain = (settings.engine, settings.device) == ("onnxruntime", "cpu")
    return is_plain and bool(plans) and all(plan.threads == 1 for plan in plans)


class Watcher:
    """Keeps one classifier's versions up to its store; belongs to one event loop."""

    def __init__(self, classifier: Classifier, threads: ThreadPoolExecutor) -> None:
        self._classifier = classifier
        self._threads = threads
        self._seen: Mapping[str, Marks] = {}

    async def run(self, poll_seconds: float) -> None:
        """Look at each whole multiple of the interval, so that processes with one store swap at
        about one time.
        """
        while True:
            await asyncio.sleep(poll_seconds - time.time() % poll_seconds)
            try:
                await self.turn()
            except Exception:  # one bad look must not be the last
                logger.exception("the store could not be looked at")

    async def turn(self) -> None:
        """Look once, and swap what has changed and lies still."""
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
                    await loop.run_in_executor(self._threads, _return_memory)


def _return_memory() -> None:
    """Hand freed memory back to the system, which glibc would keep for later."""
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
