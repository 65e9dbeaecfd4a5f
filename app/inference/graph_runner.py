"""One open graph, and what queued and inline runs of it share: run slots, one estimate, one fault.

Shape suffixes: N images of a batch, H and W rows and columns, M columns of metadata.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.inference.pending_request import run_rows
from app.inference.run_slots import RunSlots
from app.inference.step_times import LinearTime
from app.models.execution_plan import ExecutionPlan
from app.telemetry import Metrics
from cxr.graph import Graph
from cxr.interpret import Outputs

logger = logging.getLogger("cxr.batcher")

STOPPED = "The model has stopped; the service must be restarted."


@dataclass(frozen=True, slots=True)
class GraphRun:
    """The outputs of one run, image by image, and its seconds."""

    rows: list[Outputs]
    seconds: float


class GraphRunner:
    """Runs one graph for its batcher and for inline runs. Belongs to one event loop."""

    def __init__(
        self, graph: Graph, metrics: Metrics, plan: ExecutionPlan, on_stop: Callable[[], None]
    ) -> None:
        self.metrics = metrics
        self.max_batch = plan.max_batch
        self.num_run_slots = plan.run_slots
        self.runs_on_one_core = plan.threads == 1
        self.run_slots = RunSlots(plan.run_slots)
        self.run_time = LinearTime(plan.seconds_per_image, plan.seconds_per_run)
        self.fault: str | None = None
        self._graph = graph
        self._loop = asyncio.get_running_loop()
        self._on_stop = on_stop

    def run(
        self,
        batch_NHW: NDArray[np.uint8],
        metadata_NM: NDArray[np.float32] | None = None,
        *,
        with_map: bool = True,
    ) -> GraphRun:
        """Run a batch in the calling thread, which holds a run slot; raises `GraphError`."""
        started = time.monotonic()
        rows = run_rows(self._graph, batch_NHW, metadata_NM, with_map=with_map)
        self.metrics.observe_batch(len(batch_NHW))
        return GraphRun(rows, time.monotonic() - started)

    def stop(self, error: BaseException | None) -> None:
        """Answer no further request, and log why once. Called in the event loop."""
        if self.fault is None:
            self.fault = STOPPED
            logger.critical("the runs of a model died", exc_info=error)
            self._on_stop()

    def close(self) -> None:
        """Let go of the batcher, which holds this runner: a cycle would keep the graph's memory."""
        self._on_stop = _do_nothing

    def stop_from_thread(self, error: BaseException) -> None:
        """Do as `stop`, from any thread."""
        self._loop.call_soon_threadsafe(self.stop, error)


def _do_nothing() -> None:
    return None
