"""Requests with `x-priority: bulk` give way to all others."""

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.bulk_priority import Slack
from app.errors import Overloaded
from tests.app.fake_graph import FakeGraph
from tests.app.serving import Served, serving, until

pytestmark = pytest.mark.anyio

BULK = {"x-priority": "bulk"}


class Load:
    """How many uploads are in flight, as a test says."""

    def __init__(self, count: int) -> None:
        self.count = count


def make_slack(load: Load, *, cores: int = 2, max_waiting: int = 8) -> Slack:
    return Slack(lambda: load.count, cores=cores, max_waiting=max_waiting)


def soon() -> float:
    return time.monotonic() + 30


async def test_a_bulk_request_begins_at_once_if_nothing_is_in_flight() -> None:
    await make_slack(Load(0)).wait(time.monotonic())


@pytest.mark.parametrize(("cores", "room"), [(1, 1), (2, 1), (8, 7)])
async def test_bulk_leaves_a_core_free_for_others(cores: int, room: int) -> None:
    await make_slack(Load(room - 1), cores=cores).wait(time.monotonic())

    with pytest.raises(Overloaded):
        await make_slack(Load(room), cores=cores).wait(time.monotonic())


async def test_a_bulk_request_that_waits_begins_when_others_end() -> None:
    load = Load(1)
    slack = make_slack(load)
    waiting = asyncio.create_task(slack.wait(soon()))
    await asyncio.sleep(0)
    assert not waiting.done()

    load.count = 0
    slack.look()

    await waiting


async def test_a_bulk_request_begins_though_nobody_says_that_there_is_slack() -> None:
    load = Load(1)
    waiting = asyncio.create_task(make_slack(load).wait(soon()))
    await asyncio.sleep(0)

    load.count = 0

    await waiting


async def test_bulk_requests_begin_in_the_order_in_which_they_came() -> None:
    load = Load(1)
    slack = make_slack(load)
    begun: list[int] = []

    async def request(number: int) -> None:
        await slack.wait(soon())
        begun.append(number)
        slack.look()

    requests = [asyncio.create_task(request(number)) for number in range(4)]
    await asyncio.sleep(0)
    load.count = 0
    slack.look()
    await asyncio.gather(*requests)

    assert begun == [0, 1, 2, 3]


async def test_more_bulk_requests_than_may_wait_are_refused() -> None:
    slack = make_slack(Load(1), max_waiting=1)
    first = asyncio.create_task(slack.wait(soon()))
    await asyncio.sleep(0)

    with pytest.raises(Overloaded):
        await slack.wait(soon())
    first.cancel()


async def test_a_bulk_request_whose_client_left_makes_room() -> None:
    load = Load(1)
    slack = make_slack(load)
    leaver, stayer = (asyncio.create_task(slack.wait(soon())) for _ in range(2))
    await asyncio.sleep(0)
    leaver.cancel()
    load.count = 0

    await stayer


async def post(served: Served, file: bytes, **more: Any) -> httpx.Response:
    return await served.client.post("/predict", files={"file": file}, **more)


async def test_a_bulk_request_waits_while_another_is_in_flight(
    store: Path, graph: FakeGraph, png: bytes
) -> None:
    async with serving(store, opener=graph.open) as served:
        in_flight = served.classifier.admission
        graph.gate.clear()
        others = [asyncio.create_task(post(served, png)) for _ in range(64)]
        await until(lambda: in_flight.num_in_flight == 64)
        bulk = asyncio.create_task(post(served, png, headers=BULK))
        await asyncio.sleep(0.3)  # it looks every 0.1 s

        assert in_flight.num_in_flight == 64
        graph.gate.set()
        assert (await bulk).status_code == 200
        assert {(await other).status_code for other in others} == {200}


async def test_a_bulk_request_that_finds_no_slack_is_refused_with_a_time(
    store: Path, graph: FakeGraph, png: bytes
) -> None:
    async with serving(store, opener=graph.open) as served:
        graph.gate.clear()
        others = [asyncio.create_task(post(served, png)) for _ in range(64)]
        await until(lambda: served.classifier.admission.num_in_flight == 64)

        refused = await post(served, png, headers={**BULK, "x-request-timeout-seconds": "0.2"})

        graph.gate.set()
        await asyncio.gather(*others)
    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1


async def test_the_files_of_a_bulk_batch_run_one_after_the_other(
    store: Path, graph: FakeGraph, png: bytes
) -> None:
    graph.latency_s = 0.02
    async with serving(store, opener=graph.open) as served:
        admission = served.classifier.admission
        most = 0

        def watch(_batch: object) -> None:
            nonlocal most
            most = max(most, admission.num_in_flight)

        graph.failure = watch
        files = [("files", (str(number), png)) for number in range(5)]
        answer = await served.client.post("/predict/batch", files=files, headers=BULK)

    assert [set(result) for result in answer.json()["results"]] == [{"filename", "prediction"}] * 5
    assert most == 1


@pytest.mark.parametrize("status", ["503", "429"])
async def test_a_refusal_has_the_status_that_the_settings_name(
    store: Path, graph: FakeGraph, png: bytes, status: str
) -> None:
    async with serving(
        store, opener=graph.open, overload_status=status, queue_capacity=1
    ) as served:
        graph.gate.clear()
        held = asyncio.create_task(post(served, png))
        await until(lambda: served.classifier.admission.num_in_flight == 1)

        refused = await post(served, png)

        graph.gate.set()
        assert (await held).status_code == 200
    assert refused.status_code == int(status)
    assert (refused.json()["status"], refused.json()["code"]) == (int(status), "overloaded")
    assert "retry-after" in refused.headers
