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
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.app.fake_graph import FakeGraph
from tests.app.serving import listening, until
from tests.factories import chest, make_png
from tests.server import ROOT, Server, running_server

pytestmark = pytest.mark.anyio

PNG = make_png(chest(64, 64))


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m app` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        env={**os.environ, **variables}, cwd=ROOT, capture_output=True, text=True, timeout=250,
        check=False,
    )  # fmt: skip


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
        answer = run(
            CXR_PORT=str(taken.getsockname()[1]), CXR_STORE=str(store), CXR_DEFAULT_MODEL="bright"
        )

    assert answer.returncode != 0


def test_it_answers_logs_json_and_ends_cleanly(store: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        running_server(store, log, default_model="bright", drain_seconds=4) as server,
        client_of(server) as client,
    ):
        answer = client.post("/predict", files={"file": ("secret.png", PNG)})
        server.process.send_signal(signal.SIGTERM)
        _wait_until_draining(client)
        draining = [client.get("/readyz"), client.post("/predict", content=PNG)]
        status = server.process.wait(60)

    assert answer.status_code == 200
    assert "server" not in answer.headers
    assert [response.json()["code"] for response in draining] == ["not_ready", "not_ready"]
    assert status == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["status"] for line in lines if line.get("route") == "/predict"] == [200, 503]
    assert "secret.png" not in log.read_text()


def test_ctrl_c_ends_it_without_waiting(store: Path, tmp_path: Path) -> None:
    with running_server(
        store, tmp_path / "log", default_model="bright", drain_seconds=60
    ) as server:
        server.process.send_signal(signal.SIGINT)

        assert server.process.wait(60) == 0


def test_what_was_taken_is_answered_while_the_service_goes_down(
    store: Path, tmp_path: Path
) -> None:
    with (
        running_server(
            store, tmp_path / "log", default_model="bright", drain_seconds=0.3
        ) as server,
        client_of(server) as client,
    ):

        def body() -> Iterator[bytes]:
            yield PNG[:100]
            _wait_until_read(server)
            server.process.send_signal(signal.SIGTERM)
            _wait_until_refused(server)  # the port is closed, this connection is not
            yield PNG[100:]

        answer = client.post("/predict", content=body())

        assert answer.status_code == 200
        assert server.process.wait(60) == 0


def test_what_takes_too_long_when_the_service_goes_down_is_told_so(
    store: Path, tmp_path: Path
) -> None:
    patience = {"x-request-timeout-seconds": "30"}
    with (
        running_server(
            store, tmp_path / "log", default_model="bright", default_timeout_seconds=1
        ) as server,
        client_of(server) as client,
    ):

        def body() -> Iterator[bytes]:
            yield PNG[:100]
            _wait_until_read(server)
            server.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                server.process.wait(5)
            yield PNG[100:]

        answer = client.post("/predict", content=body(), headers=patience)

    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert '"status": 503' in (tmp_path / "log").read_text()


def test_an_open_connection_has_one_more_answer_after_the_port_has_closed(
    store: Path, tmp_path: Path
) -> None:
    with (
        running_server(store, tmp_path / "log", default_model="bright") as server,
        client_of(server) as client,
    ):
        client.get("/livez")  # opens the connection
        server.process.send_signal(signal.SIGTERM)
        _wait_until_refused(server)

        last = client.post("/predict", content=PNG)

    assert last.json()["code"] == "not_ready"
    assert last.headers["connection"] == "close"


def _wait_until_draining(client: httpx.Client) -> None:
    while client.get("/readyz").status_code == 200:
        time.sleep(0.01)


def _wait_until_read(server: Server) -> None:
    """Wait for an answer on another connection: the event loop has read what was sent before."""
    assert httpx.get(f"{server.url}/livez", timeout=60).status_code == 200


def _wait_until_refused(server: Server) -> None:
    with suppress(OSError):
        while True:
            socket.create_connection(
                (httpx.URL(server.url).host, httpx.URL(server.url).port or 80)
            ).close()
            time.sleep(0.005)


def client_of(server: Server) -> httpx.Client:
    """A client of a running service."""
    return httpx.Client(base_url=server.url, timeout=60)


async def test_closing_the_service_waits_for_what_is_in_work(store: Path, graph: FakeGraph) -> None:
    async with listening(store, opener=graph.open) as served:
        received = served.app.state.service.metrics.registry.get_sample_value
        graph.gate.clear()
        asking = [
            asyncio.create_task(served.client.post("/predict", content=PNG)) for _ in range(6)
        ]
        await until(lambda: received("cxr_stage_duration_seconds_count", {"stage": "receive"}) == 6)
        served.classifier.drain()
        await asyncio.sleep(0.1)
        graph.gate.set()
        answers = await asyncio.gather(*asking)

    assert [answer.status_code for answer in answers] == [200] * 6
