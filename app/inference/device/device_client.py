"""Connect a serving process to the device process, and again if that process is replaced.

    keep()      connects, hands over shared memory, opens the versions in use
    open()      opens a version there, however long that takes
    run()       puts an image into a slot, and waits for its outputs

If the connection ends, all that wait for it fail at once with `NotReady`. New shared memory is made
for each connection: a process that was replaced may still write into the old one.

Shape suffixes: H and W input rows and columns, M columns of metadata.
"""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.errors import NotReady
from app.inference.device.remote_graph import RemoteGraph, RemoteShape
from app.inference.device.shared_memory_handover import send_shared_memory
from app.inference.device.shared_memory_slots import SharedSlots, fits
from app.inference.device.socket_records import SECONDS_BEFORE_RETRY
from app.inference.device.version_messages import OpenedVersion, WantedVersion
from app.inference.device.waiting_runs import WaitingRuns
from app.inference.pending_request import InferenceResult
from app.models.execution_plan import ExecutionPlan
from cxr.bundle import Bundle
from cxr.errors import BundleError
from cxr.graph.runtime import Cancellation

logger = logging.getLogger("cxr.device")

_RETRY_S = 0.1
"""Seconds between two attempts to connect."""

_REOPEN_S = 2.0
"""Seconds between two attempts to open a version that served before the process was replaced."""

GONE = "The process that runs the models is being replaced."


class DeviceClient:
    """The connection; belongs to one event loop."""

    def __init__(self, address: Path, num_slots: int) -> None:
        """Take the path of the socket, and how many images may be in work at once."""
        self._address = address
        self._num_slots = num_slots
        self._graphs: dict[int, RemoteGraph] = {}
        self._opening: dict[int, asyncio.Future[OpenedVersion]] = {}
        self._connection: WaitingRuns | None = None
        self._num_numbers = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Keep the connection while the block runs."""
        self._loop = asyncio.get_running_loop()
        task = asyncio.create_task(self._keep(), name="device-client")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            for opening in self._opening.values():
                opening.cancel()

    def open(
        self, bundle: Bundle, _cancellation: Cancellation | None = None
    ) -> tuple[RemoteGraph, ExecutionPlan]:
        """Open a bundle's graph in the device process, from any other thread than the event loop's.

        It waits as long as the device process is not there. That process itself limits how long
        an opening may take.

        Raises:
            BundleError: the device process refuses the version.
        """
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(self._open(bundle), self._loop).result()

    async def run(
        self,
        graph: RemoteGraph,
        image_HW: NDArray[np.uint8],
        metadata_M: NDArray[np.float32] | None,
        *,
        start_by: float,
        with_map: bool,
    ) -> InferenceResult:
        """Answer one image.

        Raises:
            DeadlineExceeded: it did not start in time.
            InferenceFailed: the graph failed on it.
            NotReady: the device process is gone, or its version answers nobody.
            Overloaded: no slot is free.
        """
        if graph.pause_reason is not None or self._connection is None:
            raise NotReady(graph.pause_reason or GONE, retry_after_s=SECONDS_BEFORE_RETRY)
        return await self._connection.run(
            graph, image_HW, metadata_M, start_by=start_by, with_map=with_map
        )

    def release(self, graph: RemoteGraph) -> None:
        """Let the device process close a version that this process does not need any more."""
        self._graphs.pop(graph.number, None)
        if self._connection is not None:
            self._connection.close_version(graph.number)

    async def _open(self, bundle: Bundle) -> tuple[RemoteGraph, ExecutionPlan]:
        shape = RemoteShape.of(bundle)
        if not fits(shape.side, shape.num_facts, shape.cam):
            raise BundleError("the outputs of the graph are too large for the device process")
        self._num_numbers += 1
        graph = RemoteGraph(
            self, asyncio.get_running_loop(), self._num_numbers, WantedVersion.of(bundle), shape
        )
        self._graphs[graph.number] = graph
        opening = asyncio.get_running_loop().create_future()
        self._opening[graph.number] = opening
        try:
            if self._connection is not None:
                self._connection.open_version(graph.number, graph.wanted)
            opened = await opening
        finally:
            del self._opening[graph.number]
        if opened.plan is None:
            self.release(graph)
            raise BundleError(opened.refusal)
        return graph, opened.plan

    async def _keep(self) -> None:
        while True:
            try:
                connection = await self._connect()
            except OSError as error:
                logger.debug("no device process", extra={"kind": type(error).__name__})
                await asyncio.sleep(_RETRY_S)
                continue
            try:
                await connection.ended
            finally:
                self._connection = None
                connection.fail(NotReady(GONE, retry_after_s=SECONDS_BEFORE_RETRY))
            logger.error("the device process is gone")
            for graph in self._graphs.values():
                graph.pause(GONE)
            await asyncio.sleep(_RETRY_S)

    async def _connect(self) -> WaitingRuns:
        """Connect, and hand over new shared memory; raises `OSError`."""
        loop = asyncio.get_running_loop()
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.setblocking(False)
            await loop.sock_connect(link, str(self._address))
            slots, file = SharedSlots.create(self._num_slots)
            try:
                send_shared_memory(link, file, slots.num_slots)
            finally:
                os.close(file)
            connection = WaitingRuns(slots, self._on_welcome, self._on_opened)
            await loop.create_unix_connection(lambda: connection, sock=link)
        except BaseException:
            link.close()
            raise
        return connection

    def _on_welcome(self, connection: WaitingRuns) -> None:
        """Open again whatever is in use, now that the device process listens."""
        self._connection = connection
        for graph in self._graphs.values():
            connection.open_version(graph.number, graph.wanted)

    def _on_opened(self, number: int, opened: OpenedVersion) -> None:
        graph = self._graphs.get(number)
        if graph is None:  # it was released while it was opened
            if self._connection is not None and opened.plan is not None:
                self._connection.close_version(number)
            return
        opening = self._opening.get(number)
        if opened.plan is not None:
            graph.open_as(opened)
        else:
            graph.pause(opened.refusal)
            if opening is None:
                asyncio.get_running_loop().call_later(_REOPEN_S, self._reopen, graph)
        if opening is not None and not opening.done():
            opening.set_result(opened)

    def _reopen(self, graph: RemoteGraph) -> None:
        """Try again to open a version that answered before, while it can't answer."""
        is_wanted = self._graphs.get(graph.number) is graph and graph.pause_reason is not None
        if self._connection is not None and is_wanted:
            self._connection.open_version(graph.number, graph.wanted)
