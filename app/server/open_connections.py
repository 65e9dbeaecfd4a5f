"""Limits on the connections of one process: their number, and the time that an answer stays unread.

A client that stops sending or reading costs the service a file descriptor and memory for as long as
its connection lasts. If there is no room for a new connection, the one that has kept the service
waiting longest is closed.
"""

import asyncio
import socket
import struct
import sys
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol

from app.telemetry import Metrics

_MIN_BYTES_PER_S = 64 * 1024
"""Rate at which an answer must be read; half a megabit a second."""

_MIN_WAIT_S = 0.25
"""Seconds for which no connection is closed in favour of another: a sound client needs less."""

_RESERVED_DESCRIPTORS = 64
"""File descriptors for everything but connections: pipes of decoders, the store, the log."""

_MIN_CONNECTIONS = 8

_BYTES_ACKED = struct.Struct("=120xQ")
"""`tcpi_bytes_acked` in Linux's `struct tcp_info` (include/uapi/linux/tcp.h)."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one connection, and all of a process together, may cost."""

    header_timeout_s: float = 10.0
    send_timeout_s: float = 10.0
    max_connections: int = 1000
    overload_status: int = 503
    """Of the answer to a connection that is one too many."""
    last_look_s: float = 0.05
    """Between the end of a wait and its consequence. If this process stood still, its timers are
    due before it reads what clients sent meanwhile."""


class Connection(Protocol):
    """What is known of a connection here."""

    transport: asyncio.Transport
    unread: "UnreadAnswer"

    @property
    def waits_since(self) -> float | None:
        """Time on the loop's clock since which the service waits for the client, if it does."""
        ...


@dataclass(slots=True)
class UnreadAnswer:
    """How far a client has come with reading."""

    started: float | None = None
    """Begin of the current time limit; None if nothing waits to be read."""
    num_read: int = 0
    """Bytes that the client had acknowledged at that time; less than 0 counts unread ones."""

    def is_late(self, transport: asyncio.Transport, now: float, timeout_s: float) -> bool:
        """Return whether a client has read too little for `timeout_s`; call it repeatedly."""
        num_unread = transport.get_write_buffer_size()
        if not num_unread:
            self.started = None
            return False
        num_read = _num_acknowledged(transport)
        if num_read is None:  # any progress counts, as the rate is unknown
            has_progress = num_unread != -self.num_read
            num_read = -num_unread
        else:
            has_progress = num_read - self.num_read >= timeout_s * _MIN_BYTES_PER_S
        if self.started is None or has_progress:
            self.started = now
            self.num_read = num_read
        return now - self.started >= timeout_s


def usable_connections(max_connections: int) -> int:
    """Return how many connections may be open, by the setting and by the file descriptors.

    The process's soft limit of descriptors is raised as far as it may be.
    """
    if sys.platform == "win32":
        return max_connections
    import resource  # noqa: PLC0415 -- not every platform has it

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max_connections + _RESERVED_DESCRIPTORS
    if soft not in (-1, resource.RLIM_INFINITY) and soft < wanted:
        soft = wanted if hard in (-1, resource.RLIM_INFINITY) else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft in (-1, resource.RLIM_INFINITY):
        return max_connections
    return max(_MIN_CONNECTIONS, min(max_connections, soft - _RESERVED_DESCRIPTORS))


def make_room(connections: Collection[Connection], newest: Connection, metrics: Metrics) -> bool:
    """Close the connection that has kept the service waiting longest; return whether there is one.

    Args:
        connections: all open connections.
        newest: the connection that needs the room.
        metrics: counts the closed connection.
    """
    waiting = [
        (connection.waits_since, id(connection), connection)
        for connection in connections
        if connection is not newest
        and connection.waits_since is not None
        and not connection.transport.is_closing()  # it made room for another one already
    ]
    if not waiting:
        return False
    since, _, longest = min(waiting)
    assert since is not None
    if asyncio.get_running_loop().time() - since < _MIN_WAIT_S:
        return False
    metrics.dropped_connections.labels("evicted").inc()
    longest.transport.abort()
    return True


async def watch_unread_answers(
    connections: Collection[Any], timeout_s: float, metrics: Metrics
) -> None:
    """Close connections whose answers are not read in time; runs until it is cancelled.

    Connections that the service has closed already are watched too, as their last bytes may still
    wait for the client.
    """
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(min(1.0, timeout_s / 4))
        for connection in tuple(connections):
            if connection.unread.is_late(connection.transport, loop.time(), timeout_s):
                metrics.dropped_connections.labels("unread_answer").inc()
                connection.transport.abort()


def _num_acknowledged(transport: asyncio.Transport) -> int | None:
    """Return the bytes that the client's system has acknowledged; only Linux counts them."""
    connection = transport.get_extra_info("socket")
    if connection is None or sys.platform != "linux":
        return None
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
        return int(_BYTES_ACKED.unpack(info)[0]) or None
    except (OSError, struct.error):  # no TCP, or an older kernel
        return None
