"""A listening socket that several worker processes take connections from, each one at a time, the idler one first.

An event loop's own server takes all that wait as soon as it wakes: of the connections that a client opens together,
one process would now and then get all, and answer them alone.
"""

import asyncio
import logging
import socket
from collections.abc import Callable

logger = logging.getLogger("cxr.server")

_STAND_BACK_S = 0.0002
"""Seconds for which a process leaves the next connection to others, for each one that it has."""

_LONGEST_S = 0.002
"""Seconds that it stands back at most: senders may open a connection for each request, and all others be as busy."""

_PAUSE_S = 1.0
"""After a connection could not be taken, for want of file descriptors: trying again at once would keep a core busy."""


class SharedPort:
    """Takes connections while it is open; belongs to one event loop, and leaves the socket itself open.

    `count_open` tells how many connections this process has.
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
        """Take no connection any more."""
        self._loop.remove_reader(self._listener)
        if self._pause:
            self._pause.cancel()

    def _open(self) -> None:
        self._loop.add_reader(self._listener, self._take)

    def _open_later(self, seconds: float) -> None:
        self.close()
        self._pause = self._loop.call_later(seconds, self._open)

    def _take(self) -> None:
        """Take one connection; whatever else waits is for whoever is idler."""
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):  # another process was quicker, or the client left
            return
        except OSError as error:
            logger.error("a connection can't be taken", extra={"kind": type(error).__name__})  # noqa: TRY400 - its stack says no more
            self._open_later(_PAUSE_S)
            return
        task = self._loop.create_task(self._begin(connection))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)
        self._open_later(min(_STAND_BACK_S * (self._count_open() + len(self._beginning)), _LONGEST_S))

    async def _begin(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._make_protocol, connection)
        except OSError:  # it was reset meanwhile
            connection.close()
