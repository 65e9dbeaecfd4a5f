"""A listening socket from which several worker processes accept connections.

Each process accepts one at a time, and the idler one is quicker. An event loop's own server accepts
all waiting connections as soon as it wakes. So one process would often get all connections that a
client opens together.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress

logger = logging.getLogger("cxr.server")

_STAND_BACK_S = 0.0002
"""Seconds that a process waits before it accepts again, for each connection that it has."""

_LONGEST_S = 0.002
"""Longest such wait: clients may open a connection for each request, and all processes be busy."""

_PAUSE_S = 1.0
"""Seconds to wait if there are no file descriptors. Trying again at once would keep a core busy."""


class SharedPort:
    """Accept connections while open; belongs to one event loop.

    `count_open` returns the number of connections of this process.
    """

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        count_open: Callable[[], int],
        *,
        backlog: int,
    ) -> None:
        self._listener = listener
        self._make_protocol = make_protocol
        self._count_open = count_open
        self._loop = asyncio.get_running_loop()
        self._beginning = set[asyncio.Task[object]]()
        self._pause: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        listener.listen(backlog)
        self._open()

    def close(self) -> None:
        """Accept all waiting connections, then close the socket of this process.

        The port closes with the socket of the last process.
        """
        self._stand_back()
        with suppress(OSError):
            while True:
                self._begin_soon(self._listener.accept()[0])
        self._listener.close()

    def _open(self) -> None:
        self._loop.add_reader(self._listener, self._take)

    def _stand_back(self) -> None:
        self._loop.remove_reader(self._listener)
        if self._pause:
            self._pause.cancel()

    def _open_later(self, seconds: float) -> None:
        self._stand_back()
        self._pause = self._loop.call_later(seconds, self._open)

    def _take(self) -> None:
        """Accept one connection, and leave further ones to idler processes."""
        try:
            connection, _ = self._listener.accept()
        except (
            BlockingIOError,
            InterruptedError,
            ConnectionAbortedError,
        ):  # another process was quicker, or the client left
            return
        except OSError as error:
            logger.error("a connection can't be taken", extra={"kind": type(error).__name__})  # noqa: TRY400 - its stack says no more
            self._open_later(_PAUSE_S)
            return
        self._begin_soon(connection)
        self._open_later(
            min(_STAND_BACK_S * (self._count_open() + len(self._beginning)), _LONGEST_S)
        )

    def _begin_soon(self, connection: socket.socket) -> None:
        task = self._loop.create_task(self._begin(connection))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    async def _begin(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._make_protocol, connection)
        except OSError:  # it was reset meanwhile
            connection.close()
