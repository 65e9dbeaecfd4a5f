"""The device process: takes connections of serving processes, until nobody needs it any more."""

import asyncio
import logging
import socket
from functools import partial

from app.inference.device.front_connection import FrontConnection
from app.inference.device.open_versions import OpenVersions
from app.inference.device.run_watch import TICK_S
from app.inference.device.shared_memory_handover import receive_shared_memory

logger = logging.getLogger("cxr.device")

_PAUSE_S = 1.0
"""Seconds to wait if there are no file descriptors. Trying again at once would keep a core busy."""

_HELLO_S = 5.0
"""Seconds within which a connection must hand over its shared memory."""


class DeviceService:
    """Runs graphs for serving processes; belongs to one event loop."""

    def __init__(self, versions: OpenVersions, listener: socket.socket) -> None:
        self._versions = versions
        self._listener = listener
        self._fronts = set[FrontConnection]()
        self._is_ending = False
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def run(self) -> int:
        """Serve until `end` and the last connection, or a fault. Return the exit status."""
        self._listener.setblocking(False)
        accepting = asyncio.create_task(self._accept(), name="device-accept")
        ticking = asyncio.create_task(self._tick(), name="device-tick")
        try:
            return await self._ended
        finally:
            accepting.cancel()
            ticking.cancel()

    def end(self) -> None:
        """End as soon as no serving process is connected."""
        self._is_ending = True
        self._end_if_unused()

    def _end_if_unused(self) -> None:
        if self._is_ending and not self._fronts:
            self._stop(0)

    def _stop(self, status: int) -> None:
        if not self._ended.done():
            self._ended.set_result(status)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                link, _ = await loop.sock_accept(self._listener)
            except OSError as error:
                logger.error("a connection can't be taken", extra={"kind": type(error).__name__})  # noqa: TRY400 - its stack says no more
                await asyncio.sleep(_PAUSE_S)
                continue
            link.settimeout(_HELLO_S)
            try:
                slots = await asyncio.to_thread(receive_shared_memory, link)
            except (OSError, ValueError) as error:
                logger.warning("a connection failed", extra={"kind": type(error).__name__})
                link.close()
                continue
            link.setblocking(False)
            front = FrontConnection(self._versions, slots, self._on_end)
            self._fronts.add(front)
            try:
                await loop.connect_accepted_socket(partial(_same, front), link)
            except OSError:  # it was reset meanwhile
                link.close()
                self._on_end(front)

    def _on_end(self, front: FrontConnection) -> None:
        self._fronts.discard(front)
        self._end_if_unused()

    async def _tick(self) -> None:
        """End with status 1 if a part has died or hangs: another process takes over then."""
        while True:
            await asyncio.sleep(TICK_S)
            self._versions.run_watch.tick()
            is_stuck = self._versions.run_watch.is_stuck
            if is_stuck or self._versions.fault:
                logger.critical("runs hang" if is_stuck else "runs have died")
                self._stop(1)


def _same(front: FrontConnection) -> FrontConnection:
    return front
