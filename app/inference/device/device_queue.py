"""One model version's place in the device process, as this process's requests see it.

It offers what `Batcher` does. The batches are made in the device process, by its own `Batcher`, of
the images of all processes.

Shape suffixes: K views of one upload, H and W input rows and columns, M columns of metadata.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
from numpy.typing import NDArray

from app.inference.device.remote_graph import RemoteGraph
from app.inference.device.socket_records import SECONDS_BEFORE_RETRY
from app.inference.pending_request import InferenceResult, join_rows
from app.inference.queue_capacity import QueueCapacity
from app.inference.run_slots import WaitingImage
from app.inference.step_times import LinearTime, RunEstimate
from app.models.execution_plan import ExecutionPlan
from app.telemetry import Metrics


class DeviceQueue:
    """Runs one version in the device process. Belongs to one event loop."""

    fault = None
    """A device process that has died is replaced; this process need not be."""

    def __init__(
        self, graph: RemoteGraph, metrics: Metrics, plan: ExecutionPlan, *, capacity: int
    ) -> None:
        self.capacity = QueueCapacity(capacity)
        self.num_run_slots = plan.run_slots
        self._graph = graph
        self._metrics = metrics
        self._estimate = RunEstimate(
            LinearTime(plan.seconds_per_image, plan.seconds_per_run),
            max_batch=plan.max_batch,
            num_run_slots=plan.run_slots,
        )
        graph.on_change = self._follow
        self._follow()

    def own_seconds(self, num_views: int) -> float:
        """Estimate the run of one upload's views if all run slots are free for them."""
        return self._estimate.own_seconds(num_views)

    def shared_seconds(self, num_views: int) -> float:
        """Estimate by how much one upload's views hold up those behind them, in full batches."""
        return self._estimate.shared_seconds(num_views)

    async def run(
        self,
        views_KHW: NDArray[np.uint8],
        *,
        start_by: float,
        metadata_M: NDArray[np.float32] | None = None,
        with_map: bool = True,
    ) -> InferenceResult:
        """Answer the views of one admitted upload, as `Batcher.run` does.

        Raises:
            DeadlineExceeded: a view did not start in time.
            InferenceFailed: the graph failed on one of the views.
            NotReady: the device process is gone.
        """
        runs = self._graph.runs
        if len(views_KHW) == 1:
            return await runs.run(
                self._graph, views_KHW[0], metadata_M, start_by=start_by, with_map=with_map
            )
        started = time.monotonic()
        tasks = [
            asyncio.create_task(
                runs.run(self._graph, view_HW, metadata_M, start_by=start_by, with_map=with_map)
            )
            for view_HW in views_KHW
        ]
        try:
            rows = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        queue_s = min(row.queue_s for row in rows)
        run_s = time.monotonic() - started - queue_s
        return InferenceResult(join_rows([row.outputs for row in rows]), queue_s, run_s)

    def inline(self) -> AbstractContextManager["NoInlineRun"]:
        """Return a step for the thread that decodes, which runs nothing."""
        return self._no_inline()

    async def close(self) -> None:
        """Admit nothing more, finish what was admitted, and give the version back."""
        self.capacity.close("The service is going down.")
        await self.capacity.wait_until_empty()
        self._graph.on_change = _do_nothing
        self._graph.runs.release(self._graph)

    @contextmanager
    def _no_inline(self) -> Iterator["NoInlineRun"]:
        with WaitingImage(self._metrics.queue_depth):
            yield NoInlineRun()

    def _follow(self) -> None:
        """Refuse requests while the device process is being replaced."""
        if self._graph.pause_reason is None:
            self.capacity.resume()
        else:
            self.capacity.pause(self._graph.pause_reason, retry_after_s=SECONDS_BEFORE_RETRY)


class NoInlineRun:
    """Stands where `InlineRun` does, and lets every image queue."""

    def take(
        self,
        _image_HW: NDArray[np.uint8],
        _metadata_M: NDArray[np.float32] | None = None,
        *,
        with_map: bool = True,
    ) -> None:
        """Take nothing."""


def _do_nothing() -> None:
    return None
