"""The service as its own process: how it starts, what it says, and how it ends."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.app.fake_graph import FakeGraph
from tests.app.serving import listening, until
from tests.factories import chest, make_png

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
PNG = make_png(chest(64, 64))


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m app` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        env={**os.environ, **variables}, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


@contextmanager
def process(store: Path, log: Path, **variables: str) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """Run the service on a free port until the block ends."""
    port = free_port()
    environment = {**os.environ, "CXR_STORE": str(store), "CXR_DEFAULT_MODEL": "bright", "CXR_PORT": str(port), **variables}
    with log.open("wb") as output:
        service = subprocess.Popen([sys.executable, "-m", "app"], env=environment, cwd=ROOT, stdout=output, stderr=output)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            yield service, client
    finally:
        service.kill()
        service.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_ready(client: httpx.Client) -> float:
    """Wait for readiness; gives the seconds it took."""
    started = time.monotonic()
    while time.monotonic() - started < 20:
        try:
            if client.get("/readyz").status_code == 200:
                return time.monotonic() - started
        except httpx.TransportError:
            time.sleep(0.05)
    raise TimeoutError


def test_help_teaches_the_settings() -> None:
    answer = run("--help")

    assert answer.returncode == 0
    assert "CXR_QUEUE_CAPACITY" in answer.stdout


def test_a_misspelt_setting_stops_the_start() -> None:
    answer = run(CXR_PROT="80")

    assert answer.returncode == 2
    assert "CXR_PROT" in answer.stderr
    assert "CXR_PORT" in answer.stderr


def test_a_port_that_is_taken_ends_the_start_with_a_failure(store: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        answer = run(CXR_PORT=str(taken.getsockname()[1]), CXR_STORE=str(store), CXR_DEFAULT_MODEL="bright")

    assert answer.returncode != 0


def test_it_starts_answers_logs_json_and_ends_cleanly(store: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with process(store, log, CXR_DRAIN_SECONDS="0.6") as (service, client):
        assert wait_until_ready(client) < 10  # seconds; a quiet machine takes one
        answer = client.post("/predict", files={"file": ("secret.png", PNG)})
        service.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        draining = [client.get("/readyz"), client.post("/predict", content=PNG)]
        status = service.wait(15)

    assert answer.status_code == 200
    assert "server" not in answer.headers
    assert [response.json()["code"] for response in draining] == ["not_ready", "not_ready"]
    assert status == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["status"] for line in lines if line.get("route") == "/predict"] == [200, 503]
    assert "secret.png" not in log.read_text()


def test_ctrl_c_ends_it_without_waiting(store: Path, tmp_path: Path) -> None:
    with process(store, tmp_path / "log", CXR_DRAIN_SECONDS="60") as (service, client):
        wait_until_ready(client)
        service.send_signal(signal.SIGINT)

        assert service.wait(15) == 0


def test_what_was_taken_is_answered_while_the_service_goes_down(store: Path, tmp_path: Path) -> None:
    with process(store, tmp_path / "log", CXR_DRAIN_SECONDS="0.3") as (service, client):
        wait_until_ready(client)

        def body() -> Iterator[bytes]:
            yield PNG[:100]
            time.sleep(0.3)  # the service has taken the request by now
            service.send_signal(signal.SIGTERM)
            time.sleep(1.0)  # longer than draining: the port is closed, this connection is not
            yield PNG[100:]

        answer = client.post("/predict", content=body())

        assert answer.status_code == 200
        assert service.wait(15) == 0


async def test_closing_the_service_waits_for_what_is_in_work(store: Path, graph: FakeGraph) -> None:
    async with listening(store, opener=graph.open) as served:
        received = served.app.state.service.metrics.registry.get_sample_value
        graph.gate.clear()
        asking = [asyncio.create_task(served.client.post("/predict", content=PNG)) for _ in range(6)]
        await until(lambda: received("cxr_stage_duration_seconds_count", {"stage": "receive"}) == 6)
        served.classifier.drain()
        await asyncio.sleep(0.1)
        graph.gate.set()
        answers = await asyncio.gather(*asking)

    assert [answer.status_code for answer in answers] == [200] * 6
