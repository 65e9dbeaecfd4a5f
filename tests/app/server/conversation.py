"""Speak to the service over a socket, byte by byte."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.app.serving import Served
from tests.factories import chest, make_png

PNG = make_png(chest(64, 64))
LIVEZ = b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"


def upload(*, path: bytes = b"/predict", extra: bytes = b"", body: bytes = PNG) -> bytes:
    """Return a request with a PNG as its body."""
    head = b"POST %s HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: image/png\r\n" % path
    return head + b"%scontent-length: %d\r\n\r\n%s" % (extra, len(body), body)


@asynccontextmanager
async def connected(
    served: Served, *, receive_bytes: int | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect; `receive_bytes` sets how much the system takes for a client that does not read."""
    url = served.client.base_url
    connection = socket.socket()
    if receive_bytes:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, (url.host, url.port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=2**16)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    """Read one answer: status, head and body."""
    async with asyncio.timeout(20):
        head = await reader.readuntil(b"\r\n\r\n")
        (length,) = re.findall(rb"content-length: (\d+)", head)
        return int(head.split()[1]), head, await reader.readexactly(int(length))


async def exchange(served: Served, request: bytes) -> tuple[int, bytes, bytes]:
    """Send bytes on a connection of their own, and read one answer."""
    async with connected(served) as (reader, writer):
        writer.write(request)
        return await answer_of(reader)
