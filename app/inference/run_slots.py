"""How many runs of a graph may go on at once, in lanes of the event loop and in threads that
decode.

    Turns      taken by a thread if one is free, by a lane as soon as one is
    Waiting    one image that waits for its run, as the queue's depth counts it

Both are told of ends by threads and by the event loop.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import BoundedSemaphore, Lock
from typing import Self

from prometheus_client import Gauge


class RunSlots:
    """A number of turns; made in the event loop that its lanes belong to."""

    def __init__(self, count: int) -> None:
        self._free = BoundedSemaphore(count)
        self._loop = asyncio.get_running_loop()
        self._was_freed = asyncio.Event()
        self._num_runners_waiting = 0

    def try_acquire(self) -> bool:
        """Take a turn unless all are taken; in any thread."""
        return self._free.acquire(blocking=False)

    def release(self) -> None:
        """Let another one have the turn; in any thread."""
        self._free.release()
        if self._num_runners_waiting:
            self._loop.call_soon_threadsafe(self._was_freed.set)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Hold a turn, waited for in the event loop."""
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
    """One image that counts as waiting inside the block, until `end` says that it does no more."""

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
        """Count it no more; in any thread, and more than once."""
        with self._lock:
            if self._is_waiting:
                self._depth.dec()
            self._is_waiting = False
