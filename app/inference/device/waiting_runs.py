"""One connection of a serving process to the device process, and the runs that wait for it.

Shape suffixes: H and W input rows and columns, M columns of metadata.
"""

import asyncio
from collections.abc import Callable
from typing import cast

import numpy as np
from numpy.typing import NDArray

from app.errors import DeadlineExceeded, InferenceFailed, NotReady, Overloaded, ServiceError
from app.inference.device.remote_graph import RemoteGraph
from app.inference.device.shared_memory_slots import SharedSlots
from app.inference.device.socket_records import (
    SECONDS_BEFORE_RETRY,
    Kind,
    Record,
    RecordReader,
    RecordWriter,
    Verdict,
)
from app.inference.device.version_messages import OPENED, OpenedVersion, WantedVersion
from app.inference.pending_request import InferenceResult

_Waiting = tuple[asyncio.Future[InferenceResult], RemoteGraph, bool]
"""An answer, the graph that gives it, and whether the map is wanted."""


class WaitingRuns(asyncio.Protocol):
    """Belongs to one event loop."""

    def __init__(
        self,
        slots: SharedSlots,
        on_welcome: Callable[["WaitingRuns"], None],
        on_opened: Callable[[int, OpenedVersion], None],
    ) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._slots = slots
        self._free = list(range(slots.num_slots))
        self._waiting: dict[int, _Waiting] = {}
        self._on_welcome = on_welcome
        self._on_opened = on_opened
        self._reader = RecordReader()
        self._writer: RecordWriter
        self._transport: asyncio.Transport

    async def run(
        self,
        graph: RemoteGraph,
        image_HW: NDArray[np.uint8],
        metadata_M: NDArray[np.float32] | None,
        *,
        start_by: float,
        with_map: bool,
    ) -> InferenceResult:
        """Answer one image; raises as `DeviceClient.run` does."""
        if not self._free:
            raise Overloaded("Too many images wait for the process that runs the models.")
        slot = self._free.pop()
        self._slots.image_HW(slot, graph.shape.side)[:] = image_HW
        num_columns = 0 if metadata_M is None else len(metadata_M)
        if metadata_M is not None:
            self._slots.metadata_M(slot, num_columns)[:] = metadata_M
        answer: asyncio.Future[InferenceResult] = asyncio.get_running_loop().create_future()
        self._waiting[slot] = (answer, graph, with_map)
        self._writer.write(
            Record(Kind.RUN, graph.number, slot, num_columns, start_by, float(with_map))
        )
        try:
            return await answer
        finally:
            # The slot is free only when the device process says so.
            if answer.cancelled():
                self._writer.write(Record(Kind.CANCEL, slot=slot))

    def open_version(self, number: int, wanted: WantedVersion) -> None:
        """Ask for a version."""
        body = wanted.model_dump_json().encode()
        self._writer.write(Record(Kind.OPEN, number, number=len(body)), body)

    def close_version(self, number: int) -> None:
        """Give a version back."""
        self._writer.write(Record(Kind.CLOSE, number))

    def fail(self, error: ServiceError) -> None:
        """End the connection and all waiting."""
        self._transport.abort()
        for answer, _, _ in self._waiting.values():
            if not answer.done():
                answer.set_exception(error)
        self._waiting.clear()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is of no such class
        self._writer = RecordWriter(self._transport)

    def data_received(self, data: bytes) -> None:
        """Take what the device process says; end the connection if it is no sense."""
        try:
            for record, body in self._reader.feed(data):
                self._receive(record, body)
        except (ValueError, KeyError):
            self._transport.abort()

    def connection_lost(self, _exc: Exception | None) -> None:
        """Tell that the device process is gone."""
        if not self.ended.done():
            self.ended.set_result(None)

    def _receive(self, record: Record, body: bytes) -> None:
        if record.kind == Kind.DONE:
            self._settle(record)
        elif record.kind == Kind.WELCOME:
            self._on_welcome(self)
        elif record.kind == Kind.OPENED:
            self._on_opened(record.version, OPENED.validate_json(body))

    def _settle(self, record: Record) -> None:
        answer, graph, with_map = self._waiting.pop(record.slot)
        if not answer.done():
            if record.number == Verdict.ANSWERED:
                cam_shape = graph.shape.cam if with_map else (0, 0)
                outputs = self._slots.read_outputs(record.slot, cam_shape)
                answer.set_result(InferenceResult(outputs, record.first, record.second))
            else:
                answer.set_exception(_error_of(record.number))
        self._free.append(record.slot)


def _error_of(verdict: int) -> ServiceError:
    if verdict == Verdict.LATE:
        return DeadlineExceeded("The deadline passed while the image was waiting.")
    if verdict == Verdict.FAILED:
        return InferenceFailed("The model could not answer for this image.")
    return NotReady(
        "The process that runs the models can't answer now.", retry_after_s=SECONDS_BEFORE_RETRY
    )
