"""Where the images of one model version wait and run: in this process, or in the device process.

Shape suffixes: K views of one upload, H and W input rows and columns, M columns of metadata.
"""

from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.inference.batcher import Batcher
from app.inference.device.device_queue import DeviceQueue
from app.inference.device.remote_graph import RemoteGraph
from app.inference.inline_runs import InlineImage
from app.inference.pending_request import InferenceResult
from app.inference.queue_capacity import QueueCapacity
from app.models.store import ServedVersion
from app.telemetry import Metrics


class InlineStep(Protocol):
    """Lets one image run in the thread that decoded it, or lets it queue."""

    def take(
        self,
        image_HW: NDArray[np.uint8],
        metadata_M: NDArray[np.float32] | None = None,
        *,
        with_map: bool = True,
    ) -> InlineImage | None:
        """Return None if the image must queue."""
        ...


class ModelQueue(Protocol):
    """`Batcher` or `DeviceQueue`; both say more of each member."""

    capacity: QueueCapacity
    num_run_slots: int

    @property
    def fault(self) -> str | None:
        """Why it will never answer again; None while it works."""
        ...

    def own_seconds(self, num_views: int) -> float:
        """Estimate the run of one upload's views."""
        ...

    def shared_seconds(self, num_views: int) -> float:
        """Estimate by how much one upload's views hold up those behind them."""
        ...

    async def run(
        self,
        views_KHW: NDArray[np.uint8],
        *,
        start_by: float,
        metadata_M: NDArray[np.float32] | None = None,
        with_map: bool = True,
    ) -> InferenceResult:
        """Answer the views of one admitted upload."""
        ...

    def inline(self) -> AbstractContextManager[InlineStep]:
        """Return the step for the thread that decodes."""
        ...

    async def close(self) -> None:
        """Admit nothing more, finish what was admitted, and let go of the graph."""
        ...


def make_queue(version: ServedVersion, metrics: Metrics, *, capacity: int) -> ModelQueue:
    """Return the queue of a version, which belongs to the running event loop."""
    if isinstance(version.graph, RemoteGraph):
        return DeviceQueue(version.graph, metrics, version.plan, capacity=capacity)
    return Batcher(version.graph, metrics, version.plan, capacity=capacity)
