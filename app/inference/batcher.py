"""One model version's bounded queue, and the lanes that empty it in batches.

    admit(views)      before the body is read, and again when it is there: whole or not at all
    run(views)        waits for the answer of all views of one image
    at_once           the same for one image that nobody waits before, in the thread that made it
    lane x n          takes what is queued, up to `max_batch`, and never waits for more

A view of test-time augmentation is one image of a batch; the views of one
upload may lie in several batches, so that idle lanes share them.  The queue
never grows beyond `capacity`, because only admitted images enter it.

Shape suffixes: N images of a batch, K views of one upload, H and W rows and columns, M columns of
metadata.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.cpu import COMPUTE_NICENESS, step_back
from app.errors import DeadlineExceeded, InferenceFailed, NotReady, Overloaded
from app.inference.latency import LinearTime
from app.inference.pending import InferenceResult, Item, PendingRequest, run_rows
from app.inference.run_slots import RunSlots, WaitingImage
from app.models.tuning import ExecutionPlan
from app.telemetry import Metrics
from cxr.errors import GraphError
from cxr.graph import Graph
from cxr.interpret import Outputs

logger = logging.getLogger("cxr.batcher")

_STOPPED = "The model has stopped; the service must be restarted."


@dataclass(frozen=True, slots=True)
class _Running:
    """A batch that a lane runs now."""

    num_images: int
    started: float


class RunHere(Protocol):
    """Runs one image in the calling thread, or gives None; see `Batcher.at_once`."""

    def __call__(
        self, image_HW: NDArray[np.uint8], metadata_M: NDArray[np.float32] | None = None, /
    ) -> InferenceResult | None:
        """Run `image_HW`, of the graph's input size."""
        ...


class Batcher:
    """Runs one graph for many requests at once; belongs to one event loop."""

    def __init__(
        self, graph: Graph, metrics: Metrics, plan: ExecutionPlan, *, capacity: int
    ) -> None:
        self._graph = graph
        self._metrics = metrics
        self._max_batch = plan.max_batch
        self._capacity = capacity
        self._loop = asyncio.get_running_loop()
        self._run_slots = RunSlots(plan.run_slots)
        self._runs_on_one_core = plan.threads == 1
        self._queue: deque[PendingRequest] = deque()
        self._waiting = 0
        self._admitted = 0
        self._idle = plan.run_slots
        self.num_run_slots = plan.run_slots
        self._run_time = LinearTime(plan.seconds_per_image, plan.seconds_per_run)
        self._running: dict[
            object, _Running
        ] = {}  # by lane, or by the image that runs at once, told by its thread
        self._arrived = asyncio.Event()
        self._open = True
        self._fault: str | None = None
        self._threads = ThreadPoolExecutor(
            plan.run_slots,
            thread_name_prefix="lane",
            initializer=step_back,
            initargs=(COMPUTE_NICENESS,),
        )
        self._runners = [
            asyncio.create_task(self._serve(), name=f"lane-{number}")
            for number in range(plan.run_slots)
        ]
        for lane in self._runners:
            lane.add_done_callback(self._on_runner_end)

    @property
    def fault(self) -> str | None:
        """Why this batcher will never answer again; None while it works."""
        return self._fault

    @property
    def wait_s(self) -> float:
        """Seconds until a lane would take an image that is admitted now, behind all that was
        admitted before.
        """
        now, running = time.monotonic(), list(self._running.values())
        num_running = sum(run.num_images for run in running)
        left_s = sum(
            max(0.0, run.started + self._run_time.seconds(run.num_images) - now) for run in running
        )
        num_ahead = max(0, self._admitted - num_running)
        return (
            left_s + self._run_time.seconds_of_many(num_ahead, self._max_batch)
        ) / self.num_run_slots

    def seconds(self, num_views: int) -> float:
        """Forecast the run of one upload's views on lanes that are idle, which share them."""
        return self._run_time.seconds_of_many(
            math.ceil(num_views / self.num_run_slots), self._max_batch
        )

    def check(self, num_views: int) -> None:
        """Refuse what could not be admitted now; raises `Overloaded` or `NotReady`."""
        if self._fault or not self._open:
            raise NotReady(self._fault or "The service is going down.")
        if self._admitted + num_views > self._capacity:
            raise Overloaded(
                "More images are waiting than may wait.",
                retry_after_s=max(1, math.ceil(self.wait_s)),
            )

    @contextmanager
    def admit(self, num_views: int) -> Iterator[None]:
        """Hold places for all views of one upload, from its decoding to its answer; raises as
        `check`.
        """
        self.check(num_views)
        self._admitted += num_views
        try:
            yield
        finally:
            self._admitted -= num_views
            if not self._open:
                self._arrived.set()

    async def run(
        self,
        views_KHW: NDArray[np.uint8],
        *,
        deadline: float,
        metadata_M: NDArray[np.float32] | None = None,
    ) -> InferenceResult:
        """Answer the views of one admitted upload, uint8 [K, H, W].

        Args:
            views_KHW: all of the graph's input size.
            deadline: on `time.monotonic`'s clock; a view that did not start by then is dropped.
            metadata_M: what is known beside the image, for graphs that read it.

        Raises:
            DeadlineExceeded: the deadline passed before the run.
            InferenceFailed: the graph failed on one of the views.
            NotReady: the lanes have died.
        """
        if self._fault:
            raise NotReady(self._fault)
        pending = PendingRequest(
            views_KHW, deadline, self._loop.create_future(), time.monotonic(), metadata_M
        )
        self._queue.append(pending)
        self._count_waiting(len(views_KHW))
        self._arrived.set()
        try:
            return await pending.answer
        finally:
            self._forget(pending)

    @contextmanager
    def at_once(self) -> Iterator[RunHere]:
        """Return the way to answer one image in the thread that makes it: `run`, without a lane to
        wait for.

        It is for any thread, and raises `InferenceFailed`.  It runs nothing and gives None if a
        run takes more cores than one, where others wait or as many run as may, and where there are
        others to make a batch with: those wait for a lane.  Until it runs, or the block ends, the
        image counts as waiting.
        """
        if not self._runs_on_one_core:
            yield _leave_it
            return
        with WaitingImage(self._metrics.queue_depth) as waiting:
            yield partial(self._run_here, waiting)

    def _run_here(
        self,
        waiting: WaitingImage,
        image_HW: NDArray[np.uint8],
        metadata_M: NDArray[np.float32] | None = None,
    ) -> InferenceResult | None:
        would_fill_batches = self._max_batch > 1 and self._admitted > self.num_run_slots
        if self._fault or self._waiting or would_fill_batches or not self._run_slots.try_acquire():
            return None
        waiting.end()
        started = time.monotonic()
        self._running[waiting] = _Running(1, started)
        try:
            (row,) = run_rows(
                self._graph, image_HW[None], None if metadata_M is None else metadata_M[None]
            )
        except GraphError as exc:
            logger.exception("the graph failed on an image")
            raise InferenceFailed("The model could not answer for this image.") from exc
        except BaseException as exc:
            self._loop.call_soon_threadsafe(self._stop, exc)
            raise InferenceFailed(_STOPPED) from exc
        finally:
            del self._running[waiting]
            self._run_slots.release()
        run_s = time.monotonic() - started
        self._loop.call_soon_threadsafe(
            self._run_time.observe, 1, run_s
        )  # also of a run that nobody waits for any more
        self._metrics.batch_size.observe(1)
        return InferenceResult(row, 0.0, run_s)

    async def close(self) -> None:
        """Admit nothing more, finish what was admitted, end the lanes."""
        self._open = False
        self._arrived.set()
        await asyncio.gather(*self._runners, return_exceptions=True)
        self._threads.shutdown(wait=False)

    async def _serve(self) -> None:
        """Be one lane: take a batch, run it in a thread, hand out its rows; ends when closed and
        nothing is admitted.
        """
        while True:
            while not self._queue:
                if not self._open and not self._admitted:
                    return
                self._arrived.clear()
                await self._arrived.wait()
            async with self._run_slots.one():
                batch = self._take()
                if batch:
                    await self._run_as_runner(batch)

    async def _run_as_runner(self, batch: Sequence[Item]) -> None:
        self._idle -= 1
        try:
            await self._run(batch)
        except BaseException as exc:  # this lane ends; whoever was on it must not wait for ever
            self._stop(exc)
            for pending, _ in batch:
                pending.fail(InferenceFailed(_STOPPED))
            raise
        finally:
            self._idle += 1

    def _take(self) -> list[Item]:
        """Take the oldest views, at most this lane's share of what waits; drops what expired or was
        given up.
        """
        room = min(self._max_batch, math.ceil(self._waiting / max(1, self._idle)))
        batch: list[Item] = []
        now = time.monotonic()
        while self._queue and len(batch) < room:
            pending = self._queue[0]
            if pending.deadline <= now:
                pending.fail(DeadlineExceeded("The deadline passed while the image was waiting."))
            if pending.answer.done():
                self._forget(pending)
                continue
            pending.first_run = pending.first_run or now
            batch.append((pending, pending.taken))
            pending.taken += 1
            self._count_waiting(-1)
            if pending.taken == len(pending.views_KHW):
                self._queue.popleft()
        return batch

    def _forget(self, pending: PendingRequest) -> None:
        """Take the views of a ticket that still wait out of the queue."""
        num_waiting = len(pending.views_KHW) - pending.taken
        if num_waiting:
            self._queue.remove(pending)
            self._count_waiting(-num_waiting)
            pending.taken = len(pending.views_KHW)

    async def _run(self, batch: Sequence[Item]) -> None:
        """Run a batch; where it fails, run its views singly, so that only the bad one fails."""
        try:
            rows = await self._run_graph(batch)
        except GraphError:
            await self._run_singly(batch)
        else:
            for (pending, index), row in zip(batch, rows, strict=True):
                pending.settle(index, row)

    async def _run_singly(self, batch: Sequence[Item]) -> None:
        for pending, index in batch:
            if pending.answer.done():
                continue
            try:
                (row,) = await self._run_graph([(pending, index)])
            except GraphError:
                logger.exception("the graph failed on an image")
                pending.fail(InferenceFailed("The model could not answer for this image."))
            else:
                pending.settle(index, row)

    async def _run_graph(self, batch: Sequence[Item]) -> list[Outputs]:
        batch_NHW = np.stack([pending.views_KHW[index] for pending, index in batch])
        known = [pending.metadata_M for pending, _ in batch if pending.metadata_M is not None]
        metadata_NM = np.stack(known) if known else None  # of one graph: all have it, or none
        started = time.monotonic()
        lane = asyncio.current_task()
        self._running[lane] = _Running(len(batch), started)
        try:
            rows = await self._loop.run_in_executor(
                self._threads, run_rows, self._graph, batch_NHW, metadata_NM
            )
        finally:
            del self._running[lane]
        self._run_time.observe(len(batch), time.monotonic() - started)
        self._metrics.batch_size.observe(len(batch))
        return rows

    def _count_waiting(self, change: int) -> None:
        self._waiting += change
        self._metrics.queue_depth.inc(change)

    def _on_runner_end(self, lane: asyncio.Task[None]) -> None:
        """Fail everyone, loudly, when a lane ends for another reason than closing."""
        error = None if lane.cancelled() else lane.exception()
        if error is not None or self._open:
            self._stop(error)

    def _stop(self, error: BaseException | None) -> None:
        """Answer nobody any more, and say so once."""
        if self._fault:
            return
        self._fault = _STOPPED
        logger.critical("a lane died", exc_info=error)
        for pending in list(self._queue):
            pending.fail(InferenceFailed(_STOPPED))


def _leave_it(_image_HW: NDArray[np.uint8], _metadata_M: NDArray[np.float32] | None = None) -> None:
    return None
