"""Where decoding runs: in threads, or in worker processes where a codec must be stoppable.

Pillow, uncompressed and RLE let go of the interpreter or are quick, so threads
do them; every other codec goes to a process.  `cxr.decode.needs_worker` tells by
content which it is.  All of it happens before an image queues for the model, so
that a bad file never meets a good one in a batch.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from app.decoders.pool import WorkerPool
from app.decoders.prepare import HEATMAP_SIDE, Preparation, Prepared, prepare
from cxr.decode import needs_worker

__all__ = ["HEATMAP_SIDE", "Decoders", "Preparation", "Prepared"]

P = ParamSpec("P")
T = TypeVar("T")


class Decoders:
    """The threads and processes that decode; belongs to one event loop."""

    def __init__(self, *, num_threads: int, num_workers: int, max_seconds: float, max_memory_bytes: int) -> None:
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="decode")
        self._pool = WorkerPool(num_workers, max_seconds=max_seconds, max_memory_bytes=max_memory_bytes)

    @property
    def fault(self) -> str | None:
        """Why some files will never be decoded again; None while all may."""
        return self._pool.fault

    @property
    def worker_process_ids(self) -> tuple[int, ...]:
        """The worker processes that live now."""
        return self._pool.process_ids

    def start(self) -> None:
        """Start the worker processes in the background."""
        self._pool.start()

    async def prepare(self, data: bytes, preparation: Preparation) -> Prepared:
        """Prepare one upload where it belongs; raises `ImageError` or `NotReady`."""
        prepared = await self.run_in_thread(_prepare_unless_worker, data, preparation)
        return prepared or await self._pool.run(data, preparation)

    async def run_in_thread(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run another step on pixels beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: step(*args, **kwargs))

    async def close(self) -> None:
        """Stop the processes and let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._pool.close()


def _prepare_unless_worker(data: bytes, preparation: Preparation) -> Prepared | None:
    return None if needs_worker(data) else prepare(data, preparation)
