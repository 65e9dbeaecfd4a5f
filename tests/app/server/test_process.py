"""A service process starts late and ends soon, whatever its store, its port and its log do."""

import http.client
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

from tests.app.server.conversation import LIVEZ
from tests.bundles import endless_graph, replace_graph, write_made_bundle
from tests.server import ROOT, Server, free_port, running_server

pytestmark = pytest.mark.timeout(200)

END_S = 30.0
"""More than any end takes on a busy machine, and less than a drain with its longest answer."""

PLAN = {"engine_lanes": 1, "engine_threads": 1, "max_batch": 1, "default_model": "bright"}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_made_bundle(tmp_path / "store", "bright", 1)
    return tmp_path / "store"


@contextmanager
def started(store: Path, stdout: int, **settings: object) -> Iterator[subprocess.Popen[bytes]]:
    """Start the service without waiting for it."""
    names = {"store": store, "drain_seconds": 0, "port": free_port(), **PLAN, **settings}
    variables = {f"CXR_{name.upper()}": str(value) for name, value in names.items()}
    environment = {name: value for name, value in os.environ.items() if name[:4] != "CXR_"}
    with subprocess.Popen(
        [sys.executable, "-m", "app"], cwd=ROOT, env=environment | variables, stdout=stdout
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(log: Path, message: str) -> None:
    """Wait until the service has logged a message."""
    deadline = time.monotonic() + 100
    while message not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_ends_a_service_that_opens_a_version_for_ever(store: Path, workers: int) -> None:
    log = store.parent / "log"
    settings = {**PLAN, "store_poll_seconds": 0.2, "open_seconds": 3600, "workers": workers}
    with running_server(store, log, **settings) as server:
        replace_graph(write_made_bundle(store, "bright", 2), endless_graph())
        deadline = time.monotonic() + 60
        while "has been opening" not in httpx.get(f"{server.url}/readyz").text:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        status = server.process.wait(END_S)

    assert status == 0


def test_sigterm_ends_a_service_that_never_finishes_its_start(store: Path) -> None:
    log = store.parent / "log"
    replace_graph(store / "bright/1", endless_graph())
    with log.open("wb") as file, started(store, file.fileno(), open_seconds=3600) as process:
        wait_for(log, "a bundle is opened")
        process.send_signal(signal.SIGTERM)
        status = process.wait(END_S)

    assert status == 0


@pytest.fixture
def hang_up_counts() -> Iterator[None]:
    """Start processes that heed SIGHUP, also if the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hang_up_counts")
@pytest.mark.parametrize("workers", [1, 2])
def test_sighup_drains_as_sigterm_does(store: Path, workers: int, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    os.environ["TMPDIR"] = str(tmp_path / "scratch")
    try:
        with running_server(store, store.parent / "log", workers=workers, **PLAN) as server:
            server.process.send_signal(signal.SIGHUP)
            status = server.process.wait(END_S)
    finally:
        del os.environ["TMPDIR"]

    assert status == 0
    assert list((tmp_path / "scratch").glob("cxr-metrics-*")) == []


def test_the_workers_metrics_do_not_outlive_a_parent_that_is_killed(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    with running_server(store, store.parent / "log", workers=2, **PLAN) as server:
        assert len(list((tmp_path / "scratch").glob("cxr-metrics-*"))) == 1
        server.process.kill()
        deadline = time.monotonic() + END_S
        while list((tmp_path / "scratch").glob("cxr-metrics-*")):
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_that_is_taken_stops_the_start_before_a_model_is_opened(
    store: Path, workers: int
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        started(store, subprocess.PIPE, port=taken.getsockname()[1], workers=workers) as process,
    ):
        output, _ = process.communicate(timeout=100)

    assert process.returncode == 1
    assert b"bundle" not in output


def test_a_log_that_nobody_reads_stops_no_answer(store: Path) -> None:
    reader, writer = os.pipe()
    port = free_port()
    with started(store, writer, port=port) as process:
        os.close(writer)
        with os.fdopen(reader, "rb") as log:
            while json.loads(log.readline())["message"] != "Application startup complete.":
                pass
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                for _ in range(400):  # a pipe holds some 250 lines
                    assert client.get("/livez").status_code == 200
                metrics = client.get("/metrics").text
            process.send_signal(signal.SIGTERM)
            assert process.wait(END_S) == 0

    assert "cxr_dropped_log_lines_total 0.0" in metrics  # some ten thousand lines may wait


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="the system stops no process")
def test_requests_that_came_while_the_process_stood_still_are_answered(
    store: Path, tmp_path: Path
) -> None:
    with running_server(
        store, tmp_path / "log", default_model="bright", header_timeout_seconds=5
    ) as server:
        used = _connect(server)
        used.sendall(LIVEZ)
        first = _status(used)
        new = _connect(server)
        server.process.send_signal(signal.SIGSTOP)
        used.sendall(LIVEZ)
        new.sendall(LIVEZ)
        time.sleep(6)  # uvicorn closes a connection that was silent for 5 seconds
        server.process.send_signal(signal.SIGCONT)
        statuses = _status(used), _status(new)
        used.close()
        new.close()

    assert first == 200
    assert statuses == (200, 200)


def _connect(server: Server) -> socket.socket:
    address = httpx.URL(server.url)
    return socket.create_connection((address.host, address.port or 0), timeout=60)


def _status(connection: socket.socket) -> int:
    """Read one answer whole, and return its status."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    response.read()
    return response.status
