"""Where decoding runs: in threads, or in worker processes where a codec must be stoppable.

Pillow, uncompressed and RLE let go of the interpreter or are quick, so threads
do them; every other codec goes to a process.  Which it is, `cxr.decode` tells by
content (`NeedsWorker`).  All of it happens before an image runs or queues for the
model, so that a bad file never meets a good one in a batch.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar

from app.cpu import COMPUTE_NICENESS, step_back
from app.errors import DeadlineExceeded
from app.inference.decoders.pool import WorkerPool
from app.inference.latency import DecodeTimes
from cxr.errors import NeedsWorker
from cxr.prepare import HEATMAP_SIDE, Preparation, Prepared, prepare

__all__ = ["HEATMAP_SIDE", "Decoders", "Preparation", "Prepared"]

_AT_HAND = 2
"""Uploads that each thread has at hand, the one that it works on among them: it need not wait for
the event loop to find the next. More would keep the steps after decoding, which are not counted
here, waiting behind them."""

P = ParamSpec("P")
T = TypeVar("T")


class Decoders:
    """The threads and processes that decode; belongs to one event loop."""

    def __init__(
        self, *, num_threads: int, num_workers: int, max_seconds: float, max_memory_bytes: int
    ) -> None:
        self.num_threads = num_threads
        self._in_hand = asyncio.Semaphore(_AT_HAND * num_threads)
        self._times = DecodeTimes()
        self._tasks = set["_DecodeTask[Any]"]()
        self._threads = ThreadPoolExecutor(
            num_threads,
            thread_name_prefix="decode",
            initializer=step_back,
            initargs=(COMPUTE_NICENESS,),
        )
        self._pool = WorkerPool(
            num_workers, max_seconds=max_seconds, max_memory_bytes=max_memory_bytes
        )

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
        return (
            sum(task.estimate_s for task in self._tasks if not task.is_prepared) / self.num_threads
        )

    def seconds(self, num_bytes: int) -> float:
        """Forecast how long a file of this length is decoded; a length of 0 is unknown."""
        return self._times.seconds(num_bytes)

    async def prepare(self, data: bytes, preparation: Preparation, *, deadline: float) -> Prepared:
        """Prepare one upload where it belongs, oldest first.

        Args:
            data: the file.
            preparation: how it is to be prepared.
            deadline: on `time.monotonic`'s clock; what has not begun by then is not begun.

        Raises:
            ImageError: what is wrong with the file.
            NotReady: the worker processes are gone.
            Overloaded: so many files wait for a worker process that this one would be late.
            DeadlineExceeded: the deadline passed before its turn.
        """
        done = await self.prepare_in_thread(_nothing, data, preparation, deadline=deadline)
        return (
            done[0] if done else await self.prepare_in_worker(data, preparation, deadline=deadline)
        )

    async def prepare_in_thread(
        self,
        step: Callable[[Prepared], T],
        data: bytes,
        preparation: Preparation,
        *,
        deadline: float,
    ) -> tuple[Prepared, T | None] | None:
        """Prepare one upload and take the next step with its image in the same thread; None where
        it needs a worker.

        What was just decoded lies in the caches of the core that decoded it, and no other thread
        need be woken. `step` takes what was prepared, and whatever it raises is raised here; it is
        not taken, and None given for it, where nobody waits any more.  Raises `ImageError` or
        `DeadlineExceeded`, as `prepare`.
        """
        task = _DecodeTask(step, data, preparation, deadline, self.seconds(len(data)))
        self._tasks.add(task)
        try:
            async with self._in_hand:
                done = await asyncio.get_running_loop().run_in_executor(self._threads, task.run)
        finally:
            task.is_wanted = False
            self._tasks.remove(task)
        if done is not None and preparation.preview_side is None:  # pictures take their own time
            self._times.observe(len(data), done[0].seconds)
        return done

    async def prepare_in_worker(
        self, data: bytes, preparation: Preparation, *, deadline: float
    ) -> Prepared:
        """Prepare one upload that needs a worker process; raises `ImageError`, `NotReady` or
        `Overloaded`, as `prepare`.
        """
        return await self._pool.run(data, preparation, deadline=deadline)

    async def run_in_thread(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run another step on pixels beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: step(*args, **kwargs)
        )

    async def close(self) -> None:
        """Stop the processes and let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._pool.close()


@dataclass(eq=False, slots=True)
class _DecodeTask(Generic[T]):
    """What one thread does with one upload, and whether anybody still waits for it."""

    step: Callable[[Prepared], T]
    data: bytes
    preparation: Preparation
    deadline: float
    estimate_s: float
    """Of its decoding."""
    is_wanted: bool = True
    is_prepared: bool = False

    def run(self) -> tuple[Prepared, T | None] | None:
        """Prepare the upload and take the step; None if a worker process must prepare it. Runs
        in a thread.
        """
        self._check("The deadline passed before the file was decoded.")
        try:
            prepared = prepare(self.data, self.preparation, can_be_stopped=False)
        except NeedsWorker:
            return None
        self.is_prepared = True
        self._check("The deadline passed before the model ran.")
        return prepared, self.step(prepared) if self.is_wanted else None

    def _check(self, too_late: str) -> None:
        if time.monotonic() >= self.deadline:
            raise DeadlineExceeded(too_late)


def _nothing(_prepared: Prepared) -> None:
    return None
