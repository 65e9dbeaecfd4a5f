"""Pages and facts take turns if they are asked for without a pause; probes and uploads do not."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from app.api.cell_rate import CellRate
from app.api.throttle import Turns
from app.errors import Overloaded
from tests.app.server.conversation import connected
from tests.app.serving import listening, serving

pytestmark = pytest.mark.anyio

SLOW = 0.001
"""Requests a second that are as good as none: nothing is answered while a test runs."""


def waits(rate: CellRate, times: list[float]) -> list[float]:
    """Return how long requests at these times wait, each taken when it is due."""
    found = []
    for now in times:
        found.append(rate.wait_s(now))
        rate.take(now)
    return found


def here() -> bool:
    return True


async def begin(
    turns: Turns, address: str, is_here: Callable[[], bool] = here
) -> asyncio.Task[bool]:
    task = asyncio.create_task(turns.take(address, is_here))
    await asyncio.sleep(0)
    return task


def test_requests_within_the_burst_and_the_rate_do_not_wait() -> None:
    rate = CellRate(per_second=10, burst=5)

    assert waits(rate, [100.0] * 5) == [0.0] * 5
    assert waits(rate, [100.1, 100.2, 100.3]) == pytest.approx([0.0, 0.0, 0.0])


def test_requests_beyond_the_burst_wait_their_turn() -> None:
    assert waits(CellRate(per_second=10, burst=1), [100.0] * 4) == pytest.approx(
        [0.0, 0.1, 0.2, 0.3]
    )


def test_a_quiet_time_allows_one_burst_and_no_more() -> None:
    rate = CellRate(per_second=10, burst=3)
    rate.take(0.0)

    assert waits(rate, [1000.0] * 4) == pytest.approx([0.0, 0.0, 0.0, 0.1])


async def test_an_address_that_asks_once_comes_before_the_crowd_of_another() -> None:
    turns = Turns(CellRate(per_second=50, burst=1), 100)
    await turns.take("crowd", here)
    crowd = [await begin(turns, "crowd") for _ in range(20)]
    single = await begin(turns, "scraper")
    await single

    assert sum(task.done() for task in crowd) <= 2
    assert all(await asyncio.gather(*crowd))


async def test_who_has_left_loses_no_turn_for_others() -> None:
    turns = Turns(CellRate(per_second=0.5, burst=1), 1000)
    await turns.take("a", here)
    left = [await begin(turns, "a", lambda: False) for _ in range(500)]
    last = await begin(turns, "a")

    async with asyncio.timeout(20):  # 1000 s if each of them had a turn
        assert await last
    assert not any(await asyncio.gather(*left))


async def test_if_too_many_wait_the_address_with_most_of_them_is_refused() -> None:
    turns = Turns(CellRate(per_second=SLOW, burst=1), 10)
    await turns.take("crowd", here)
    crowd = [await begin(turns, "crowd") for _ in range(10)]
    with pytest.raises(Overloaded):
        await turns.take("crowd", here)
    other = await begin(turns, "scraper")

    with pytest.raises(Overloaded):
        await crowd[-1]
    assert not any(task.done() for task in (*crowd[:-1], other))
    for task in (*crowd, other):
        task.cancel()


async def test_who_has_left_takes_no_room_of_others() -> None:
    turns = Turns(CellRate(per_second=SLOW, burst=1), 10)
    await turns.take("a", here)
    gone = [await begin(turns, "a", lambda: False) for _ in range(10)]
    other = await begin(turns, "a")

    assert not any(await asyncio.gather(*gone))
    assert not other.done()
    other.cancel()


async def test_a_crowd_that_asks_for_pages_waits_and_probes_and_uploads_do_not(
    store: Path, png: bytes
) -> None:
    async with serving(store) as served:
        started = asyncio.get_running_loop().time()
        crowd = [asyncio.create_task(served.client.get("/docs")) for _ in range(250)]
        await asyncio.wait(crowd, return_when=asyncio.FIRST_COMPLETED)
        probe = await served.client.get("/livez")
        upload = await served.client.post("/predict", content=png)
        answers = await asyncio.gather(*crowd)
        seconds = asyncio.get_running_loop().time() - started

    assert (probe.status_code, upload.status_code) == (200, 200)
    assert seconds > 1.4  # a hundred at once, and a hundred a second
    assert all(answer.status_code == 200 for answer in answers)


async def test_clients_that_ask_and_leave_keep_no_scraper_waiting(store: Path) -> None:
    async with listening(store) as served:
        for _ in range(8):
            async with AsyncExitStack() as crowd:
                for _ in range(200):
                    _, writer = await crowd.enter_async_context(connected(served))
                    writer.write(b"GET /nothing HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
                await asyncio.sleep(0.1)
        async with asyncio.timeout(10):  # 15 s if each of them had a turn
            answer = await served.client.get("/metrics")

    assert answer.status_code == 200
