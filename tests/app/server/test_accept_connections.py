"""How a process takes connections from its socket, alone or with others."""

import asyncio
import resource
import socket
from collections.abc import Iterator
from itertools import pairwise

import pytest

from app.server.accept_connections import Acceptor
from tests.app.serving import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


def connect(listener: socket.socket, count: int) -> list[socket.socket]:
    return [socket.create_connection(listener.getsockname()) for _ in range(count)]


async def test_a_process_with_connections_leaves_the_next_one_to_others_for_a_moment(
    listener: socket.socket,
) -> None:
    taken: list[float] = []

    class Taker(asyncio.Protocol):
        def connection_made(self, _transport: asyncio.BaseTransport) -> None:
            taken.append(asyncio.get_running_loop().time())

    acceptor = Acceptor(listener, Taker, lambda: 10, backlog=16, is_shared=True)
    for _ in range(5):  # if the event loop was held up, a late connection is near to the next one
        taken.clear()
        clients = connect(listener, 4)
        await until(lambda: len(taken) == 4)
        for client in clients:
            client.close()
        shortest_s = min(later - earlier for earlier, later in pairwise(taken))
        if shortest_s >= 0.0015:
            break
    acceptor.close()

    assert shortest_s >= 0.0015


async def test_a_process_that_is_alone_takes_all_that_wait_in_one_turn(
    listener: socket.socket,
) -> None:
    loop = asyncio.get_running_loop()
    taken: list[int] = []
    turn = 0

    def count_turns() -> None:
        nonlocal turn
        turn += 1
        loop.call_soon(count_turns)

    class Taker(asyncio.Protocol):
        def connection_made(self, _transport: asyncio.BaseTransport) -> None:
            taken.append(turn)

    acceptor = Acceptor(listener, Taker, lambda: 10, backlog=64, is_shared=False)
    clients = connect(listener, 50)
    count_turns()
    await until(lambda: len(taken) == len(clients))
    acceptor.close()

    assert max(taken) - min(taken) <= 2
    for client in clients:
        client.close()


async def test_who_waits_when_it_closes_is_taken_and_who_comes_later_is_refused(
    listener: socket.socket,
) -> None:
    taken: list[asyncio.BaseTransport] = []

    class Taker(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            taken.append(transport)

    address = listener.getsockname()
    acceptor = Acceptor(listener, Taker, lambda: len(taken), backlog=16, is_shared=True)
    clients = connect(listener, 4)
    acceptor.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    await until(lambda: len(taken) == len(clients))
    for client in clients:
        client.close()


async def test_a_process_without_file_descriptors_tries_again_later(
    listener: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[asyncio.BaseTransport] = []

    class Taker(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            taken.append(transport)

    acceptor = Acceptor(listener, Taker, lambda: len(taken), backlog=16, is_shared=True)
    (client,) = connect(listener, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (client.fileno(), hard)
    )  # the next descriptor is beyond it
    try:
        await until(lambda: "can't be taken" in caplog.text)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await until(lambda: len(taken) == 1)
    acceptor.close()
    client.close()

    assert caplog.text.count("can't be taken") == 1
