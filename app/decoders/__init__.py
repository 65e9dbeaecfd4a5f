"""Where decoding runs: in threads, or in worker processes where a codec must be stoppable.

Pillow, uncompressed and RLE let go of the interpreter or are quick, so threads
do them; every other codec goes to a process.  `cxr.decode.needs_worker` tells by
content which it is.  All of it happens before an image queues for the model, so
that a bad file never meets a good one in a batch.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from app.cores import LABOUR_NICENESS, step_back
from app.decoders.pool import WorkerPool
from app.decoders.prepare import HEATMAP_SIDE, Preparation, Prepared, prepare
from app.errors import DeadlineExceeded
from app.forecast import DecodeTimes
from cxr.decode import needs_worker

__all__ = ["HEATMAP_SIDE", "Decoders", "Preparation", "Prepared"]

P = ParamSpec("P")
T = TypeVar("T")


class Decoders:
    """The threads and processes that decode; belongs to one event loop."""

    def __init__(self, *, num_threads: int, num_workers: int, max_seconds: float, max_memory_bytes: int) -> None:
        self.num_threads = num_threads
        self._turns = asyncio.Semaphore(num_threads)
        self._times = DecodeTimes()
        self._ahead_s = 0.0
        self._threads = ThreadPoolExecutor(
            num_threads, thread_name_prefix="decode", initializer=step_back, initargs=(LABOUR_NICENESS,)
        )
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

    @property
    def wait_s(self) -> float:
        """Seconds until a thread would take a file that comes now."""
        return max(0.0, self._ahead_s) / self.num_threads

    def seconds(self, num_bytes: int) -> float:
        """Forecast how long a file of this length is decoded; a length of 0 is unknown."""
        return self._times.seconds(num_bytes)

    async def prepare(self, data: bytes, preparation: Preparation, *, deadline: float) -> Prepared:
        """Prepare one upload where it belongs, oldest first.

        Raises:
            ImageError: what is wrong with the file.
            NotReady: the worker processes are gone.
            Overloaded: so many files wait for a worker process that this one would be late.
            DeadlineExceeded: the deadline passed before its turn.
        """
        prepared = await self._prepare_in_thread(data, preparation, deadline)
        return prepared or await self._pool.run(data, preparation, deadline=deadline)

    async def _prepare_in_thread(self, data: bytes, preparation: Preparation, deadline: float) -> Prepared | None:
        """Prepare a file unless it needs a worker process, which gives None."""
        forecast_s = self.seconds(len(data))
        self._ahead_s += forecast_s
        try:
            async with self._turns:
                if time.monotonic() >= deadline:
                    raise DeadlineExceeded("The deadline passed before the file was decoded.")
                prepared = await self.run_in_thread(_prepare_unless_worker, data, preparation)
        finally:
            self._ahead_s -= forecast_s
        if prepared is not None and preparation.preview_side is None:  # pictures take their own time
            self._times.observe(len(data), prepared.decode_s + prepared.preprocess_s)
        return prepared

    async def run_in_thread(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run another step on pixels beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: step(*args, **kwargs))

    async def close(self) -> None:
        """Stop the processes and let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._pool.close()


def _prepare_unless_worker(data: bytes, preparation: Preparation) -> Prepared | None:
    return None if needs_worker(data) else prepare(data, preparation)
