"""Whether a client has left, which its system tells before its last bytes are read."""

import asyncio
import socket

_LEFT = frozenset({7, 8})
"""States CLOSE and CLOSE_WAIT of a TCP connection (Linux, include/net/tcp_states.h): the other end
has closed it."""


def has_left(transport: asyncio.Transport) -> bool:
    """Return whether the client has closed its end, though bytes of it are still unread."""
    connection = transport.get_extra_info("socket")
    if connection is None or not hasattr(socket, "TCP_INFO"):  # only Linux tells
        return False
    try:
        return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in _LEFT
    except OSError:
        return True


def is_here(transport: asyncio.Transport) -> bool:
    """Return whether an answer can still reach the client."""
    return not (transport.is_closing() or has_left(transport))
