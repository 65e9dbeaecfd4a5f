"""What an autoscaler and a tracing system are told."""

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from app.telemetry import read_trace_id
from tests.app.fake_graph import FakeGraph
from tests.app.serving import serving, until
from tests.app.test_telemetry import key, samples
from tests.server import running_server

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    "traceparent", [f"00-{TRACE}-00f067aa0ba902b7-01", f"cc-{TRACE}-00f067aa0ba902b7-01-what-comes"]
)
def test_the_trace_id_of_a_traceparent_is_read(traceparent: str) -> None:
    assert read_trace_id(traceparent) == TRACE


@pytest.mark.parametrize(
    "traceparent",
    [
        None,
        "",
        TRACE,
        f"ff-{TRACE}-00f067aa0ba902b7-01",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-00f067aa0ba902b7-01",
        f"00-{TRACE}-00f067aa0ba902b7-",
        f"00-{TRACE}-00f067aa0ba902b7-01-more",
        f"00-{TRACE}-00f067aa0ba902b7-01\n",
    ],
)
def test_a_traceparent_that_breaks_its_standard_is_passed_over(traceparent: str | None) -> None:
    assert read_trace_id(traceparent) is None


def test_the_log_lines_of_a_request_name_its_trace(store: Path, tmp_path: Path, png: bytes) -> None:
    with running_server(store, tmp_path / "log", default_model="bright") as server:
        for headers in ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}, {}):
            httpx.post(f"{server.url}/predict", files={"file": png}, headers=headers)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]

    traces = [line.get("trace_id") for line in lines if line.get("route") == "/predict"]
    assert traces == [TRACE, None]


@pytest.mark.anyio
async def test_the_load_shows_in_the_metrics(store: Path, graph: FakeGraph, png: bytes) -> None:
    async with serving(store, opener=graph.open) as served:
        idle = await samples(served)
        await served.client.post("/predict", files={"file": png})
        graph.gate.clear()
        held = asyncio.create_task(served.client.post("/predict", files={"file": png}))
        await until(lambda: served.classifier.admission.num_in_flight == 1)
        busy = await samples(served)
        graph.gate.set()
        await held

    assert idle[key("cxr_backlog_seconds")] == 0
    assert busy[key("cxr_backlog_seconds")] > 0
    assert busy[key("cxr_capacity_per_second")] > 0
    assert busy[key("cxr_workers_configured")] == 1
    assert busy[key("cxr_workers", state="ready")] == 1
    assert busy[key("cxr_workers", state="not_ready")] == 0


@pytest.mark.anyio
async def test_a_worker_that_does_not_answer_is_counted_as_such(store: Path) -> None:
    async with serving(store) as served:
        served.classifier.drain()
        found = await samples(served)

    assert found[key("cxr_workers", state="ready")] == 0
    assert found[key("cxr_workers", state="not_ready")] == 1
