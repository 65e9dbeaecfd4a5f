"""A graph that the device process runs, as one serving process knows it.

Shape suffixes: N images of a batch, H and W input rows and columns, M columns of metadata.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.errors import ServiceError
from app.inference.device.version_messages import OpenedVersion, WantedVersion
from app.inference.pending_request import InferenceResult, join_rows
from cxr.bundle import Bundle
from cxr.errors import GraphError
from cxr.interpret import Outputs


class Runs(Protocol):
    """Runs images in the device process: `DeviceClient`."""

    async def run(
        self,
        graph: "RemoteGraph",
        image_HW: NDArray[np.uint8],
        metadata_M: NDArray[np.float32] | None,
        *,
        start_by: float,
        with_map: bool,
    ) -> InferenceResult:
        """Answer one image."""
        ...

    def release(self, graph: "RemoteGraph") -> None:
        """Let the device process close the graph."""
        ...


@dataclass(frozen=True, slots=True)
class RemoteShape:
    """Sizes of a graph's input and of its map."""

    side: int
    num_facts: int
    cam: tuple[int, int]

    @classmethod
    def of(cls, bundle: Bundle) -> "RemoteShape":
        """Return the sizes that a bundle states."""
        rows, columns = bundle.golden.cam_Nhw.shape[1:]
        manifest = bundle.manifest
        return cls(manifest.input_size, len(manifest.metadata), (rows, columns))


class RemoteGraph:
    """One version that is open in the device process, or was before that process was replaced."""

    def __init__(
        self,
        runs: Runs,
        loop: asyncio.AbstractEventLoop,
        number: int,
        wanted: WantedVersion,
        shape: RemoteShape,
    ) -> None:
        self.runs = runs
        self.number = number
        self.wanted = wanted
        self.shape = shape
        self.engine = ""
        self.precision = ""
        self.num_facts = shape.num_facts
        self.pause_reason: str | None = "The model is not open yet."
        """Why it can't run now; None while it can."""
        self.on_change: Callable[[], None] = _do_nothing
        """Called in the event loop whenever `pause_reason` was set."""
        self._loop = loop

    def open_as(self, opened: OpenedVersion) -> None:
        """Run from now on."""
        self.engine = opened.engine
        self.precision = opened.precision
        self.pause(None)

    def pause(self, reason: str | None) -> None:
        """Run nothing for a reason, or run again if there is none."""
        self.pause_reason = reason
        self.on_change()

    def run(
        self,
        batch_NHW: NDArray[np.uint8],
        metadata_NM: NDArray[np.float32] | None = None,
        *,
        with_map: bool = True,
    ) -> Outputs:
        """Answer a batch, uint8 [N, H, W], in order; raises `GraphError`.

        It blocks, so it must not be called in the event loop, which has `runs` for that.
        """

        async def run_all() -> list[InferenceResult]:
            rows_M = [None] * len(batch_NHW) if metadata_NM is None else list(metadata_NM)
            return await asyncio.gather(
                *(
                    self.runs.run(self, image_HW, row_M, start_by=math.inf, with_map=with_map)
                    for image_HW, row_M in zip(batch_NHW, rows_M, strict=True)
                )
            )

        try:
            results = asyncio.run_coroutine_threadsafe(run_all(), self._loop).result()
        except ServiceError as exc:
            raise GraphError(str(exc)) from exc
        return join_rows([result.outputs for result in results])


def _do_nothing() -> None:
    return None
