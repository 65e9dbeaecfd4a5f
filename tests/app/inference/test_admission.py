"""Under more than fits: who is refused, when, and what that costs the others."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.app.fake_graph import FakeGraph
from tests.app.serving import Served, listening, serving, until

pytestmark = pytest.mark.anyio

RAW = {"content-type": "application/octet-stream"}


def within(seconds: float) -> dict[str, str]:
    return RAW | {"x-request-timeout-seconds": str(seconds)}


async def teach(served: Served, png: bytes, *, answers: int = 5) -> None:
    """Let the service learn how long its answers take."""
    for _ in range(answers):
        (await served.client.post("/predict", content=png, headers=RAW)).raise_for_status()


async def fill(
    served: Served, graph: FakeGraph, png: bytes, uploads: int
) -> list[asyncio.Task[httpx.Response]]:
    """Close the gate, and let uploads queue before it."""
    graph.gate.clear()
    tasks = [
        asyncio.create_task(served.client.post("/predict", content=png, headers=RAW))
        for _ in range(uploads)
    ]
    depth = served.app.state.service.metrics.registry.get_sample_value
    await until(
        lambda: (
            depth("cxr_queue_depth") == uploads - 1
            and served.classifier.admission.num_in_flight == uploads
        )
    )
    return tasks


async def test_who_would_be_late_is_refused_before_the_body_is_read(
    store: Path, graph: FakeGraph, png: bytes
) -> None:
    graph.latency_s = 0.05
    has_read = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal has_read
        has_read = True
        yield png

    async with serving(store, opener=graph.open, engine_lanes=1, max_batch=1) as served:
        await teach(served, png)
        waiting = await fill(served, graph, png, 40)
        answer = await served.client.post("/predict", content=body(), headers=within(0.5))
        patient = asyncio.create_task(
            served.client.post("/predict", content=png, headers=within(60))
        )
        graph.gate.set()
        answers = await asyncio.gather(*waiting, patient)

    assert answer.status_code == 503
    assert answer.json()["code"] == "overloaded"
    assert 1 <= int(answer.headers["retry-after"]) <= 8
    assert not has_read
    assert {answer.status_code for answer in answers} == {200}


@pytest.mark.slow
async def test_views_that_would_be_late_are_refused_if_a_plain_image_would_be_in_time(
    store: Path, graph: FakeGraph, png: bytes
) -> None:
    graph.latency_s = 1.5
    async with serving(store, opener=graph.open, engine_lanes=1, max_batch=1) as served:
        await teach(served, png)
        (running,) = await fill(served, graph, png, 1)
        refused = await served.client.post(
            "/predict", params={"tta": True}, content=png, headers=within(4.0)
        )
        plain = asyncio.create_task(
            served.client.post("/predict", content=png, headers=within(4.0))
        )
        await until(lambda: served.classifier.admission.num_in_flight == 2)
        graph.gate.set()
        answers = await asyncio.gather(running, plain)

    assert refused.json()["code"] == "overloaded"
    assert [answer.status_code for answer in answers] == [200, 200]


async def test_more_views_than_the_queue_holds_are_a_malformed_request(
    store: Path, graph: FakeGraph, png: bytes
) -> None:
    async with serving(store, opener=graph.open, queue_capacity=1) as served:
        refused = await served.client.post(
            "/predict", params={"tta": True}, content=png, headers=RAW
        )
        plain = await served.client.post("/predict", content=png, headers=RAW)

    assert (refused.status_code, refused.json()["code"]) == (400, "malformed_request")
    assert plain.status_code == 200


async def test_runs_that_end_after_their_deadline_are_learned_from(
    store: Path, graph: FakeGraph, png: bytes
) -> None:
    graph.latency_s = 0.1
    async with serving(store, opener=graph.open, engine_lanes=1, max_batch=1) as served:
        await teach(served, png)
        graph.latency_s = 0.3
        late = [
            await served.client.post("/predict", content=png, headers=within(0.25))
            for _ in range(12)
        ]
        (running,) = await fill(served, graph, png, 1)
        refused = await served.client.post("/predict", content=png, headers=within(0.25))
        graph.gate.set()
        await running

    assert {answer.status_code for answer in late} == {504}
    assert refused.json()["code"] == "overloaded"


@pytest.mark.slow
async def test_a_service_with_nothing_in_flight_admits_even_if_it_learned_that_it_is_slow(
    store: Path, graph: FakeGraph, png: bytes
) -> None:
    graph.latency_s = 0.8
    async with serving(store, opener=graph.open, engine_lanes=1, max_batch=1) as served:
        await teach(served, png)
        graph.latency_s = 0.0
        answer = await served.client.post("/predict", content=png, headers=within(0.6))

    assert answer.status_code == 200


@pytest.mark.slow
async def test_slow_bodies_hold_up_nobody(store: Path, graph: FakeGraph, png: bytes) -> None:
    begun = 0
    is_answered = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        nonlocal begun
        begun += 1
        yield png[:10]
        await is_answered.wait()
        yield png[10:]

    graph.latency_s = 0.1
    async with listening(store, opener=graph.open, engine_lanes=1, max_batch=1) as served:
        await teach(served, png)
        slow = [
            asyncio.create_task(served.client.post("/predict", content=body(), headers=RAW))
            for _ in range(20)
        ]
        await until(lambda: begun == 20)
        await asyncio.sleep(0.4)
        answer = await served.client.post("/predict", content=png, headers=within(1.5))
        is_answered.set()
        await asyncio.gather(*slow, return_exceptions=True)  # some may have been refused

    assert answer.status_code == 200


async def test_uploads_given_up_before_they_are_read_cost_no_work_and_are_counted(
    store: Path, graph: FakeGraph, png: bytes
) -> None:
    request = (
        b"POST /predict HTTP/1.1\r\nhost: test\r\ncontent-type: image/png\r\ncontent-length: "
        b"%d\r\n\r\n" % len(png) + png
    )

    def give_up(port: int) -> None:
        for number in range(50):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(request)
                if number % 2:  # half of them break the connection, the others close it
                    connection.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )

    async with listening(store, opener=graph.open) as served:
        port, warmed = served.client.base_url.port, list(graph.batch_sizes)
        assert port is not None
        give_up(port)  # on the loop's own thread: nothing is accepted meanwhile
        answer = await served.client.post("/predict", content=png, headers=RAW)
        count = served.app.state.service.metrics.registry.get_sample_value
        gone = count("cxr_rejections_total", {"reason": "client_gone"})

    assert answer.status_code == 200
    assert graph.batch_sizes == [*warmed, 1]
    assert gone == 50
