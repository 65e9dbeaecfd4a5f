"""Pages and facts take turns if they are asked for without a pause; probes and uploads do not."""

import asyncio
from pathlib import Path

import pytest

from app.api.pace import Pace
from tests.app.serving import serving

pytestmark = pytest.mark.anyio


def test_requests_within_the_burst_and_the_rate_do_not_wait() -> None:
    pace = Pace(per_second=10, burst=5)
    at_once = [pace.wait_s(100.0) for _ in range(5)]
    spaced = [pace.wait_s(100.0 + second) for second in (0.1, 0.2, 0.3)]

    assert at_once == [0.0] * 5
    assert spaced == pytest.approx([0.0, 0.0, 0.0])


def test_requests_beyond_the_burst_wait_their_turn() -> None:
    pace = Pace(per_second=10, burst=1)
    waits = [pace.wait_s(100.0) for _ in range(4)]

    assert waits == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_a_quiet_time_allows_one_burst_and_no_more() -> None:
    pace = Pace(per_second=10, burst=3)
    pace.wait_s(0.0)
    waits = [pace.wait_s(1000.0) for _ in range(4)]

    assert waits == pytest.approx([0.0, 0.0, 0.0, 0.1])


async def test_a_crowd_that_asks_for_pages_waits_and_probes_and_uploads_do_not(
    store: Path, png: bytes
) -> None:
    async with serving(store) as served:
        crowd = [asyncio.create_task(served.client.get("/docs")) for _ in range(400)]
        await asyncio.wait(crowd, return_when=asyncio.FIRST_COMPLETED)
        probe = await served.client.get("/livez")
        upload = await served.client.post("/predict", content=png)
        num_waiting = sum(not one.done() for one in crowd)
        answers = await asyncio.gather(*crowd)

    assert (probe.status_code, upload.status_code) == (200, 200)
    assert num_waiting > 0
    assert all(answer.status_code == 200 for answer in answers)
