"""A listening socket, from which one process or several accept connections.

Of several processes each accepts one connection at a time, so that the idler one is quicker: else
one of them would often get all connections that a client opens together. A process that is alone
accepts all that wait. uvloop's own server accepts one in each turn of the event loop; in a crowd of
greedy clients a new one waited ten seconds for its turn.
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

_MOST_AT_ONCE = 128
"""Connections that are accepted in one turn, so that other work has its turn too."""

_PAUSE_S = 1.0
"""Seconds to wait if there are no file descriptors. Trying again at once would keep a core busy."""


class Acceptor:
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
        is_shared: bool,
    ) -> None:
        self._listener = listener
        self._make_protocol = make_protocol
        self._count_open = count_open
        self._is_shared = is_shared
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
        """Accept what waits, or one connection if idler processes may take the others."""
        if not self._is_shared:
            for _ in range(_MOST_AT_ONCE):
                if not self._take_one():
                    return
        elif self._take_one():
            num_open = self._count_open() + len(self._beginning)
            self._open_later(min(_STAND_BACK_S * num_open, _LONGEST_S))

    def _take_one(self) -> bool:
        """Accept one connection, and tell whether there was one."""
        try:
            connection, _ = self._listener.accept()
        except (
            BlockingIOError,
            InterruptedError,
            ConnectionAbortedError,
        ):  # another process was quicker, or the client left
            return False
        except OSError as error:
            logger.error("a connection can't be taken", extra={"kind": type(error).__name__})  # noqa: TRY400 - its stack says no more
            self._open_later(_PAUSE_S)
            return False
        self._begin_soon(connection)
        return True

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
