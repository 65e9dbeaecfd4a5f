"""One model version's bounded queue, and the runners that empty it in batches.

    run(views)     waits for the answer of all views of one image
    inline()       the same for one image that waits for no other, in the thread that decoded it
    runner x n     takes what is queued, up to `max_batch`, and never waits for more

A view of test-time augmentation is one image of a batch. The views of one upload may lie in
several batches, so that idle runners share them. The queue never grows beyond its capacity,
because only admitted images enter it.

Shape suffixes: N images of a batch, K views of one upload, H and W rows and columns, M columns of
metadata.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial

import numpy as np
from numpy.typing import NDArray

from app.cpu import COMPUTE_NICENESS, step_back
from app.errors import DeadlineExceeded, InferenceFailed, NotReady
from app.inference.graph_runner import STOPPED, GraphRunner
from app.inference.inline_runs import MOST_INLINE, InlineRun, inline_run
from app.inference.pending_request import InferenceResult, Item, PendingRequest
from app.inference.queue_capacity import QueueCapacity
from app.inference.step_times import RunEstimate
from app.models.execution_plan import ExecutionPlan
from app.telemetry import Metrics
from cxr.errors import GraphError
from cxr.graph import Graph
from cxr.interpret import Outputs

logger = logging.getLogger("cxr.batcher")


class Batcher:
    """Runs one graph for many requests at once. Belongs to one event loop."""

    def __init__(
        self, graph: Graph, metrics: Metrics, plan: ExecutionPlan, *, capacity: int
    ) -> None:
        self.capacity = QueueCapacity(capacity)
        self.num_run_slots = plan.run_slots
        self._metrics = metrics
        self._runner = GraphRunner(graph, metrics, plan, self._fail_all)
        self._estimate = RunEstimate(
            self._runner.run_time, max_batch=plan.max_batch, num_run_slots=plan.run_slots
        )
        self._loop = asyncio.get_running_loop()
        self._queue: deque[PendingRequest] = deque()
        self._num_waiting = 0
        self._num_idle = plan.run_slots
        self._arrived = asyncio.Event()
        self._is_ending = False
        self._threads = ThreadPoolExecutor(
            plan.run_slots,
            thread_name_prefix="run",
            initializer=step_back,
            initargs=(COMPUTE_NICENESS,),
        )
        self._tasks = [
            asyncio.create_task(self._serve(), name=f"runner-{number}")
            for number in range(plan.run_slots)
        ]
        for task in self._tasks:
            task.add_done_callback(self._on_runner_end)

    @property
    def fault(self) -> str | None:
        """Why this batcher will never answer again; None while it works."""
        return self._runner.fault

    def own_seconds(self, num_views: int) -> float:
        """Estimate the run of one upload's views if all run slots are free for them."""
        return self._estimate.own_seconds(num_views)

    def shared_seconds(self, num_views: int) -> float:
        """Estimate by how much one upload's views hold up those behind them, in full batches."""
        return self._estimate.shared_seconds(num_views)

    def observe(self, num_images: int, seconds: float) -> None:
        """Learn how long one run without maps took."""
        self._runner.run_time.observe(num_images, seconds)

    async def run(
        self,
        views_KHW: NDArray[np.uint8],
        *,
        start_by: float,
        metadata_M: NDArray[np.float32] | None = None,
        with_map: bool = True,
    ) -> InferenceResult:
        """Answer the views of one admitted upload, uint8 [K, H, W].

        Args:
            views_KHW: all of the graph's input size.
            start_by: on `time.monotonic`'s clock; a view that did not start by then is dropped.
            metadata_M: the metadata features, for graphs that read them.
            with_map: whether the maps of the views are wanted.

        Raises:
            DeadlineExceeded: a view did not start in time.
            InferenceFailed: the graph failed on one of the views.
            NotReady: the runners have died.
        """
        pending = self.submit(
            views_KHW, start_by=start_by, metadata_M=metadata_M, with_map=with_map
        )
        try:
            return await pending.answer
        finally:
            self._forget(pending)

    def submit(
        self,
        views_KHW: NDArray[np.uint8],
        *,
        start_by: float,
        metadata_M: NDArray[np.float32] | None = None,
        with_map: bool = True,
    ) -> PendingRequest:
        """Let views wait for their run, and return at once; else as `run`.

        Raises:
            NotReady: the runners have died.
        """
        if self.fault:
            raise NotReady(self.fault)
        pending = PendingRequest(
            views_KHW, start_by, self._loop.create_future(), time.monotonic(), metadata_M, with_map
        )
        self._queue.append(pending)
        self._count_waiting(len(views_KHW))
        self._arrived.set()
        return pending

    def withdraw(self, pending: PendingRequest) -> None:
        """Drop what was submitted: nobody waits for its answer any more."""
        self._forget(pending)
        pending.answer.cancel()

    def inline(self) -> AbstractContextManager[InlineRun]:
        """Return the run of one image in the thread that decoded it."""
        return inline_run(self._runner, self._must_queue)

    def _must_queue(self) -> bool:
        """Tell whether an image waits for a runner even if a run slot is free; in any thread."""
        runner = self._runner
        is_crowded = self.capacity.num_held > self.num_run_slots
        would_fill_batches = runner.max_batch > MOST_INLINE and is_crowded
        return bool(runner.fault or self._num_waiting or would_fill_batches)

    async def close(self) -> None:
        """Admit nothing more, finish what was admitted, end the runners."""
        self.capacity.close("The service is going down.")
        if not self.fault:
            await self.capacity.wait_until_empty()
        self._is_ending = True
        self._arrived.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown(wait=False)
        self._runner.close()

    async def _serve(self) -> None:
        """Take a batch, run it in a thread, hand out its rows; end if closed and empty."""
        while True:
            while not self._queue:
                if self._is_ending:
                    return
                self._arrived.clear()
                await self._arrived.wait()
            async with self._runner.run_slots.one():
                batch = self._take()
                if batch:
                    await self._run_as_runner(batch)

    async def _run_as_runner(self, batch: Sequence[Item]) -> None:
        self._num_idle -= 1
        try:
            await self._run(batch)
        except BaseException as exc:  # this runner ends; the views in its batch must not wait
            self._runner.stop(exc)
            for pending, _ in batch:
                pending.fail(InferenceFailed(STOPPED))
            raise
        finally:
            self._num_idle += 1

    def _take(self) -> list[Item]:
        """Take the oldest views, at most this runner's share of what waits.

        Views that came too late, or that nobody waits for any more, are dropped.
        """
        room = min(self._runner.max_batch, math.ceil(self._num_waiting / max(1, self._num_idle)))
        batch: list[Item] = []
        now = time.monotonic()
        while self._queue and len(batch) < room:
            pending = self._queue[0]
            if pending.start_by <= now:
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
        """Take the views of a request that still wait out of the queue."""
        num_waiting = len(pending.views_KHW) - pending.taken
        if num_waiting:
            self._queue.remove(pending)
            self._count_waiting(-num_waiting)
            pending.taken = len(pending.views_KHW)

    async def _run(self, batch: Sequence[Item]) -> None:
        """Run a batch. If it fails, run its views singly, so that only the bad one fails."""
        try:
            rows = await self._run_graph(batch)
        except GraphError:
            if len(batch) == 1:
                logger.exception("the graph failed on an image")
                batch[0][0].fail(InferenceFailed("The model could not answer for this image."))
                return
            for item in batch:
                if not item[0].answer.done():
                    await self._run([item])
        else:
            for (pending, index), row in zip(batch, rows, strict=True):
                pending.settle(index, row)

    async def _run_graph(self, batch: Sequence[Item]) -> list[Outputs]:
        batch_NHW = np.stack([pending.views_KHW[index] for pending, index in batch])
        known = [pending.metadata_M for pending, _ in batch if pending.metadata_M is not None]
        metadata_NM = np.stack(known) if known else None  # of one graph: all have it, or none
        with_map = any(pending.with_map for pending, _ in batch)
        run = partial(self._runner.run, batch_NHW, metadata_NM, with_map=with_map)
        done = await self._loop.run_in_executor(self._threads, run)
        if not with_map:  # the time of the maps is left to the pace, as that of the pictures is
            self.observe(len(batch), done.seconds)
        return done.rows

    def _count_waiting(self, change: int) -> None:
        self._num_waiting += change
        self._metrics.queue_depth.inc(change)

    def _on_runner_end(self, task: asyncio.Task[None]) -> None:
        """Fail every waiting request if a runner ends for another reason than closing."""
        error = None if task.cancelled() else task.exception()
        if error is not None or not self._is_ending:
            self._runner.stop(error)

    def _fail_all(self) -> None:
        """Answer nobody any more."""
        self.capacity.close(STOPPED)
        for pending in list(self._queue):
            pending.fail(InferenceFailed(STOPPED))
