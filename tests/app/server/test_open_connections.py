"""Clients that do not read, and too many clients, cost the service no more than its limits."""

import asyncio
import socket
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import numpy as np
import pytest

from app.server.open_connections import ConnectionLimits, UnreadAnswer
from tests.app.fake_graph import FakeGraph
from tests.app.server.conversation import answer_of, connected, exchange, upload
from tests.app.serving import Served, listening, until
from tests.factories import make_jpeg

pytestmark = pytest.mark.anyio

NOISE = make_jpeg(np.random.default_rng(0).integers(0, 256, (2600, 2600), np.uint8))
"""Its preview has 7 MB, more than sockets take for a client that does not read."""

BRIEF = ConnectionLimits(send_timeout_s=0.5)


def sample(served: Served, name: str, **labels: str) -> float:
    value = served.app.state.service.metrics.registry.get_sample_value(name, labels)
    return value or 0.0


def num_open(served: Served) -> float:
    return sample(served, "cxr_open_connections")


async def test_an_answer_that_is_not_read_closes_its_connection(store: Path) -> None:
    async with (
        listening(store, limits=BRIEF) as served,
        connected(served, receive_bytes=4096) as (_, writer),
    ):
        writer.write(upload(path=b"/preview", body=NOISE))
        await until(lambda: num_open(served) == 1)
        await until(lambda: num_open(served) == 0)
        dropped = sample(served, "cxr_dropped_connections_total", reason="unread_answer")

    assert dropped == 1


async def test_small_answers_that_are_not_read_close_their_connection(store: Path) -> None:
    async with (
        listening(store, limits=BRIEF) as served,
        connected(served, receive_bytes=4096) as (_, writer),
    ):
        sending = asyncio.create_task(_send_until_it_is_closed(writer))
        await until(lambda: num_open(served) == 1)
        await until(lambda: num_open(served) == 0)
        num_taken = await sending

    assert num_taken < 2**24  # what sockets take, and no pile of requests in the service


async def _send_until_it_is_closed(writer: asyncio.StreamWriter) -> int:
    request = b"GET /page.css HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
    num_sent = 0
    with suppress(OSError):
        while True:
            writer.write(50 * request)
            await writer.drain()
            num_sent += 50 * len(request)
    return num_sent


async def test_an_answer_that_is_read_in_drops_closes_its_connection(store: Path) -> None:
    async with (
        listening(store, limits=BRIEF) as served,
        connected(served, receive_bytes=4096) as (reader, writer),
    ):
        writer.write(upload(path=b"/preview", body=NOISE))
        await until(lambda: num_open(served) == 1)
        while num_open(served):
            await reader.read(1)
            await asyncio.sleep(0.01)


async def test_an_answer_that_is_read_steadily_arrives_whole(store: Path) -> None:
    async with (
        listening(store, limits=BRIEF) as served,
        connected(served, receive_bytes=65536) as (reader, writer),
    ):
        writer.write(upload(path=b"/preview", body=NOISE))
        status, _, picture = await answer_of(reader)

    assert status == 200
    assert picture.endswith(b"IEND\xaeB`\x82")


async def test_large_answers_that_wait_are_bounded_and_the_longest_makes_room(store: Path) -> None:
    patient = ConnectionLimits(send_timeout_s=60)
    async with (
        listening(store, limits=patient, max_answers_bytes=10_000_000) as served,
        connected(served, receive_bytes=4096) as (_, writer),
    ):
        writer.write(upload(path=b"/preview", body=NOISE))
        await until(lambda: served.app.state.service.answer_budget.held_bytes > 0)
        statuses = set()
        async with asyncio.timeout(20):
            while 200 not in statuses:
                status, _, _ = await exchange(served, upload(path=b"/preview", body=NOISE))
                statuses.add(status)
        dropped = sample(served, "cxr_dropped_connections_total", reason="unread_answer")

    assert statuses <= {200, 503}  # every answer may wait for a second
    assert dropped == 1


async def test_two_new_connections_are_given_the_room_of_two_old_ones(
    store: Path, graph: FakeGraph
) -> None:
    few = ConnectionLimits(max_connections=8)
    async with listening(store, limits=few, opener=graph.open) as served, AsyncExitStack() as stack:
        old = [await stack.enter_async_context(connected(served)) for _ in range(8)]
        await until(lambda: num_open(served) == 8)
        await asyncio.sleep(0.5)  # a connection is left alone for its first quarter of a second
        address = (served.client.base_url.host, served.client.base_url.port)
        for _ in range(2):  # at once: both are accepted in one turn of the event loop
            stack.enter_context(socket.create_connection(address))
        async with asyncio.timeout(20):
            ends = [asyncio.create_task(reader.read()) for reader, _ in old]
            await until(lambda: sum(end.done() for end in ends) == 2)
        evicted = sample(served, "cxr_dropped_connections_total", reason="evicted")
        for end in ends:
            end.cancel()

    assert evicted == 2


async def test_a_connection_too_many_is_refused_with_the_status_of_the_setting(
    store: Path, graph: FakeGraph
) -> None:
    few = ConnectionLimits(max_connections=2, overload_status=429)
    async with (
        listening(store, limits=few, opener=graph.open) as served,
        connected(served) as (first, one),
        connected(served) as (second, other),
    ):
        graph.gate.clear()
        for writer in (one, other):
            writer.write(upload())
        await until(lambda: served.classifier.admission.num_in_flight == 2)
        status, head, _ = await exchange(served, b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n")
        graph.gate.set()
        answered = [(await answer_of(reader))[0] for reader in (first, second)]

    assert (status, answered) == (429, [200, 200])
    assert b"\r\nretry-after: 1\r\n" in head


async def test_at_the_limit_of_connections_the_longest_silent_one_makes_room(store: Path) -> None:
    few = ConnectionLimits(max_connections=10)
    async with listening(store, limits=few) as served, AsyncExitStack() as stack:
        for _ in range(10):
            _, writer = await stack.enter_async_context(connected(served))
            writer.write(b"GET /livez HTTP/1.1\r\n")
        await until(lambda: num_open(served) == 10)
        statuses: list[int] = []
        async with asyncio.timeout(10):
            while statuses[-3:] != [200, 200, 200]:
                status, _, _ = await exchange(served, upload())
                statuses.append(status)
        evicted = sample(served, "cxr_dropped_connections_total", reason="evicted")

    assert set(statuses) <= {200, 503}
    assert evicted >= 1


async def test_more_connections_than_allowed_at_once_are_refused_with_a_problem(
    store: Path,
) -> None:
    few = ConnectionLimits(max_connections=8)
    async with listening(store, limits=few) as served, AsyncExitStack() as stack:
        for _ in range(8):
            await stack.enter_async_context(connected(served))
        async with connected(served) as (reader, _):
            status, head, body = await answer_of(reader)

    assert status == 503
    assert b"retry-after: 1" in head
    assert b'"code":"overloaded"' in body


async def test_progress_is_measured_by_what_the_client_has_acknowledged() -> None:
    near, far = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=near)
    unread = UnreadAnswer()
    transport.write(bytes(2**22))

    assert not unread.is_late(transport, now=0.0, timeout_s=1.0)
    assert not unread.is_late(transport, now=0.9, timeout_s=1.0)
    assert unread.is_late(transport, now=1.0, timeout_s=1.0)
    transport.abort()
    far.close()
