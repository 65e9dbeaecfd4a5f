"""Decode uploads in threads, or in worker processes if a codec must be stoppable.

Pillow, uncompressed and RLE release the interpreter or are quick, so threads decode them. Every
other codec goes to a process. `cxr.decode` tells by content (`NeedsWorker`). A file is decoded
before its image runs or queues, so that a bad file never meets a good one in a batch.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from app.cpu import PICTURE_NICENESS, step_back
from app.errors import DeadlineExceeded
from app.inference.decoders.pool import WorkerPool
from app.inference.decoders.upload_threads import (
    NOT_BEGUN,
    Done,
    StepTask,
    UploadTask,
    UploadThreads,
)
from app.inference.inline_runs import MOST_INLINE, InlineImage
from app.inference.step_times import DecodeTimes
from cxr.decode_and_preprocess import HEATMAP_SIDE, Preparation, Prepared, prepare
from cxr.errors import NeedsWorker

__all__ = ["HEATMAP_SIDE", "Decoders", "Preparation", "Prepared"]

_AT_HAND = 2 * MOST_INLINE
"""Uploads that each thread has at hand, those in work among them: so it need not wait for the
event loop to find the next ones."""

P = ParamSpec("P")
T = TypeVar("T")


class Decoders:
    """The threads and processes that decode; belongs to one event loop."""

    def __init__(
        self, *, num_threads: int, num_workers: int, max_seconds: float, max_memory_bytes: int
    ) -> None:
        self.num_threads = num_threads
        self._in_hand = asyncio.Semaphore(_AT_HAND * (num_threads + 1))
        self._times = DecodeTimes()
        self._threads = UploadThreads(num_threads)
        self._picture_thread = ThreadPoolExecutor(
            1,
            thread_name_prefix="picture",
            initializer=step_back,
            initargs=(PICTURE_NICENESS,),
        )
        self._pool = WorkerPool(
            num_workers, max_seconds=max_seconds, max_memory_bytes=max_memory_bytes
        )

    @property
    def fault(self) -> str | None:
        """Why some files are not decoded now; None while all may be."""
        return self._pool.fault

    @property
    def worker_process_ids(self) -> tuple[int, ...]:
        """The worker processes that live now."""
        return self._pool.process_ids

    def start(self) -> None:
        """Start the worker processes in the background."""
        self._pool.start()

    def help_while(self, is_calm: Callable[[], bool]) -> None:
        """Let one more thread decode and run while this is so."""
        self._threads.is_calm = is_calm

    def seconds(self, num_bytes: int) -> float:
        """Estimate how long a file of this length is decoded; a length of 0 is unknown."""
        return self._times.seconds(num_bytes)

    async def prepare(
        self, data: bytes, preparation: Preparation, *, start_by: float, sender: str = ""
    ) -> Prepared:
        """Prepare one upload for a picture, in the picture thread or a worker process.

        Uploads that want an answer are not held up by it.

        Args:
            data: the file.
            preparation: how to prepare it.
            start_by: on `time.monotonic`'s clock; what has not begun by then is not begun.
            sender: who takes turns with others for a worker process.

        Raises:
            ImageError: what is wrong with the file.
            NotReady: the worker processes are gone.
            Overloaded: so many files wait for a worker process that this one would be late.
            DeadlineExceeded: the thread was not free in time.
        """
        try:
            return await self.run_in_picture_thread(_prepare_here, data, preparation, start_by)
        except NeedsWorker as needs:
            seconds = needs.seconds
        return await self.prepare_in_worker(
            data, preparation, start_by=start_by, sender=sender, seconds=seconds
        )

    async def prepare_in_thread(
        self,
        step: Callable[[Prepared], InlineImage | None],
        data: bytes,
        preparation: Preparation,
        *,
        start_by: float,
        run_s: float = 0.0,
    ) -> Done:
        """Prepare one upload, and run its image in the same thread if `step` returns it.

        The decoded image still lies in the caches of its core, and no other thread need be woken.

        Args:
            step: called in the thread; returns None if the image is not to run there, or not now.
            data: the file.
            preparation: how to prepare it.
            start_by: as in `prepare`.
            run_s: how long the run will take. An upload that is decoded quicker than that may
                share it with another.

        Returns:
            The image and what the run gave, or None for the run if there was none.

        Raises:
            ImageError: what is wrong with the file.
            NeedsWorker: a worker process must prepare it.
            DeadlineExceeded: no thread was free in time.
            InferenceFailed: the graph failed on the image.
        """
        loop = asyncio.get_running_loop()

        def learn(seconds: float) -> None:
            if preparation.preview_side is None:  # pictures take their own time
                self._times.observe(len(data), seconds)

        async with self._in_hand:
            task = UploadTask(
                data, preparation, start_by, step,
                lambda seconds: loop.call_soon_threadsafe(learn, seconds),
                self.seconds(len(data)), run_s, loop.create_future(),
            )  # fmt: skip
            self._threads.submit(task)
            try:
                done = await task.answer
            finally:
                task.is_wanted = False
        learn(done[0].seconds)
        return done

    async def prepare_in_worker(
        self,
        data: bytes,
        preparation: Preparation,
        *,
        start_by: float,
        sender: str = "",
        seconds: float | None = None,
    ) -> Prepared:
        """Prepare one upload that needs a worker process, for so many seconds by its headers.

        Raises `ImageError`, `NotReady` or `Overloaded`, as `prepare`.
        """
        return await self._pool.run(
            data, preparation, deadline=start_by, sender=sender, seconds=seconds
        )

    async def run_in_thread(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run another step on pixels beside the event loop."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._threads.submit(StepTask(partial(step, *args, **kwargs), answer))
        return await answer

    async def run_in_picture_thread(
        self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a step on a large picture in a thread that stands back."""
        return await asyncio.get_running_loop().run_in_executor(
            self._picture_thread, lambda: step(*args, **kwargs)
        )

    async def close(self) -> None:
        """Stop the processes and let the threads end."""
        self._threads.close()
        self._picture_thread.shutdown(wait=False, cancel_futures=True)
        await self._pool.close()


def _prepare_here(data: bytes, preparation: Preparation, start_by: float) -> Prepared:
    """Prepare an upload in the calling thread."""
    if time.monotonic() >= start_by:
        raise DeadlineExceeded(NOT_BEGUN)
    return prepare(data, preparation, can_be_stopped=False)
