"""How many runs of a graph may go on at once, by runners of the queue and in threads that decode.

    RunSlots        a thread takes a slot if one is free, a runner as soon as one is
    WaitingImage    one image that waits for its run, as the queue's depth counts it

Threads and the event loop use both.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import BoundedSemaphore, Lock
from typing import Self

from prometheus_client import Gauge


class RunSlots:
    """A number of run slots, for the runners of one event loop."""

    def __init__(self, count: int) -> None:
        self._free = BoundedSemaphore(count)
        self._loop = asyncio.get_running_loop()
        self._was_freed = asyncio.Event()
        self._num_runners_waiting = 0

    def try_acquire(self, wait_s: float = 0.0) -> bool:
        """Take a slot unless all are taken for so long; in any thread."""
        return self._free.acquire(timeout=wait_s) if wait_s else self._free.acquire(blocking=False)

    def release(self) -> None:
        """Free a slot; in any thread."""
        self._free.release()
        if self._num_runners_waiting:
            self._loop.call_soon_threadsafe(self._was_freed.set)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Wait for a slot in the event loop, and hold it."""
        self._num_runners_waiting += 1
        try:
            while not self.try_acquire():
                self._was_freed.clear()
                await self._was_freed.wait()
        finally:
            self._num_runners_waiting -= 1
        try:
            yield
        finally:
            self.release()


class WaitingImage:
    """One image that counts as waiting inside the block, or until `end`."""

    def __init__(self, depth: Gauge) -> None:
        self._depth = depth
        self._lock = Lock()
        self._is_waiting = False

    def __enter__(self) -> Self:
        self._is_waiting = True
        self._depth.inc()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Count the image no longer; in any thread, and more than once."""
        with self._lock:
            if self._is_waiting:
                self._depth.dec()
            self._is_waiting = False
