"""Several worker processes on one port: they count together, are replaced, and end as one."""

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from app.server.supervisor import SupervisionLimits, Supervisor
from app.server.worker_slot import WorkerSlot
from app.settings import Settings
from tests.app.server.failing_workers import beat_once, complain, end_at_once
from tests.app.server.senders import post, process_ids, senders
from tests.bundles import write_made_bundle
from tests.server import Server, running_server
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(
    900
)  # each starts several services, which a busy machine takes its time for


def sample(server: Server, name: str) -> float:
    text = httpx.get(f"{server.url}/metrics").text
    return sum(
        float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
    )


@contextmanager
def two_workers(store: Path, folder: Path, **settings: float) -> Iterator[Server]:
    with running_server(
        store, folder / "log", default_model="bright", workers=2, drain_seconds=0.5, **settings
    ) as server:
        wait_until(lambda: sample(server, "cxr_workers") == 2)
        yield server


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service of two workers with a store of its own; whoever takes a worker away waits for the
    next."""
    folder = tmp_path_factory.mktemp("lasting")
    write_made_bundle(folder / "store", "bright", 1)
    with two_workers(folder / "store", folder, store_poll_seconds=0.2) as server:
        yield server


@pytest.fixture
def server(store: Path, tmp_path: Path) -> Iterator[Server]:
    """The same, for a test that ends it."""
    with two_workers(store, tmp_path) as server:
        yield server


@contextmanager
def one_is_replaced(server: Server) -> Iterator[int]:
    """Give the process of the oldest worker, and wait until another one works in its place."""
    before = process_ids(server, "worker")
    replaced = sample(server, "cxr_replaced_workers_total")
    yield next(pid for pid in before if Path(f"/proc/{pid}").exists())
    wait_until(lambda: len(process_ids(server, "worker")) == len(before) + 1)
    wait_until(lambda: sample(server, "cxr_replaced_workers_total") == replaced + 1)
    wait_until(lambda: sample(server, "cxr_workers") == 2)


def test_any_worker_shows_the_sum_of_all_and_a_killed_one_is_replaced_without_counters_falling(
    lasting: Server,
) -> None:
    before = sample(lasting, "cxr_predictions_total")
    for _ in range(12):
        assert post(lasting).status_code == 200
    wait_until(  # a text of the metrics may be half a second old
        lambda: {sample(lasting, "cxr_predictions_total") - before for _ in range(6)} == {12}
    )
    with one_is_replaced(lasting) as worker:
        os.kill(worker, signal.SIGKILL)

    assert {post(lasting).status_code for _ in range(6)} == {200}
    wait_until(lambda: sample(lasting, "cxr_predictions_total") == before + 18)
    assert sample(lasting, "cxr_model_info") == 1


def test_a_worker_whose_event_loop_is_stuck_is_killed_and_replaced(lasting: Server) -> None:
    with one_is_replaced(lasting) as worker:
        os.kill(worker, signal.SIGSTOP)

    assert "hangs" in lasting.log.read_text()
    assert post(lasting).status_code == 200


def test_connections_that_come_together_are_shared_among_the_workers(lasting: Server) -> None:
    wait_until(lambda: min(shares(lasting)) > 0)  # both listen

    rounds = [min(shares(lasting)) for _ in range(ROUNDS)]
    assert sum(smaller_share >= 2 for smaller_share in rounds) >= ROUNDS / 4


ROUNDS = 20
"""A busy machine may leave one worker without a core for a whole round, but not for most."""


def shares(server: Server) -> list[int]:
    """Return how many of eight connections that are opened together each worker has taken."""
    url = httpx.URL(server.url)
    wait_until(lambda: sum(open_connections(server)) == 0)
    together = [socket.create_connection((url.host, url.port or 80)) for _ in range(8)]
    try:
        wait_until(lambda: sum(open_connections(server)) >= len(together))
        return open_connections(server)
    finally:
        for connection in together:
            connection.close()


def open_connections(server: Server) -> list[int]:
    """How many connections to the service's port each worker has."""
    port = f"{httpx.URL(server.url).port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {
        f"socket:[{line[9]}]" for line in lines if line[1].endswith(f":{port}") and line[3] == "01"
    }  # established
    workers = [pid for pid in process_ids(server, "worker") if Path(f"/proc/{pid}").exists()]
    return [len(sockets & set(opened_files(pid))) for pid in workers]


def opened_files(pid: int) -> Iterator[str]:
    """What a process's file descriptors stand for; some may be closed while they are listed."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            yield str(descriptor.readlink())


def test_a_drain_of_all_workers_loses_no_request(server: Server) -> None:
    with senders(server) as tally:
        wait_until(lambda: tally.count(200) > 10)
        server.process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        status = server.process.wait(60)

    assert status == 0
    assert time.monotonic() - started < 15
    assert tally.lost == 0
    assert tally.count(503) > 0


def test_who_comes_after_a_drain_is_refused_and_not_taken_and_dropped(server: Server) -> None:
    url = httpx.URL(server.url)
    dropped = 0
    server.process.send_signal(signal.SIGTERM)
    while server.process.poll() is None:
        try:
            with socket.create_connection((url.host, url.port or 80), timeout=60) as connection:
                connection.sendall(
                    b"GET /livez HTTP/1.1\r\nhost: [::1]\r\nconnection: close\r\n\r\n"
                )
                dropped += not connection.recv(4096)
        except ConnectionRefusedError:
            pass
        except ConnectionError:
            dropped += 1
        time.sleep(0.01)

    assert dropped == 0


def test_workers_go_down_when_their_parent_is_killed(server: Server) -> None:
    server.process.kill()
    workers = process_ids(server, "worker")
    wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


def test_all_workers_swap_to_a_new_version(lasting: Server) -> None:
    write_made_bundle(lasting.log.parent / "store", "bright", 2)
    wait_until(lambda: {post(lasting).json()["model"]["version"] for _ in range(8)} == {2})
    wait_until(lambda: has_model_info(lasting, 'version="1"} 0.0'))
    wait_until(lambda: has_model_info(lasting, 'version="2"} 1.0'))


def has_model_info(server: Server, end: str) -> bool:
    info = httpx.get(f"{server.url}/metrics").text
    return bool(re.search(rf"^cxr_model_info{{.*{end}$", info, re.MULTILINE))


IMPATIENT = SupervisionLimits(silence_s=0.3, backoff_s=0.05, max_failures=2)


@pytest.mark.parametrize("work", [end_at_once, beat_once, complain])
def test_workers_that_fail_again_and_again_end_the_service(
    work: Callable[[Settings, WorkerSlot], None],
) -> None:
    assert Supervisor(Settings(workers=2, port=0), work, IMPATIENT).run() == 1


@pytest.fixture
def supervisor() -> Supervisor:
    """A parent that was started at 100 s and heard of its two workers at 109 and 109.5 s."""
    supervisor = Supervisor(Settings(workers=3, port=0), end_at_once)
    supervisor._last_tick = 109.8
    for slot, heard in zip(supervisor._slots, (109.0, 109.5, None), strict=True):
        slot.started = 100.0
        slot.last_heartbeat = heard
    return supervisor


def test_after_a_freeze_of_all_processes_silence_counts_from_now(supervisor: Supervisor) -> None:
    supervisor._slots[1].ends_by = 112.0
    supervisor._notice_freeze(123.8)

    assert [supervisor._silence(slot, 123.8) for slot in supervisor._slots] == [0.0, 0.0, 0.0]
    assert supervisor._slots[1].ends_by == 126.0
    assert supervisor._slots[0].started == 100.0  # so a worker that ends now has lived long


def test_without_a_freeze_a_silent_worker_stays_silent(supervisor: Supervisor) -> None:
    for tick in range(60):
        supervisor._notice_freeze(110.0 + tick / 5)

    assert [round(supervisor._silence(slot, 121.8), 1) for slot in supervisor._slots[:2]] == [
        12.8,
        12.3,
    ]


def test_a_port_that_is_taken_is_said_before_any_worker_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        Supervisor(Settings(workers=2, port=taken.getsockname()[1]), end_at_once).run()


def test_workers_share_what_is_meant_for_all_together() -> None:
    share = Settings(
        workers=4, decode_threads=8, decode_workers=2, engine_lanes=8, queue_capacity=128
    ).share()

    assert (
        share.decode_threads,
        share.decode_workers,
        share.engine_lanes,
        share.queue_capacity,
    ) == (2, 1, 2, 32)
    assert (
        Settings(workers=4).share().engine_lanes == 0
    )  # still measured, on the worker's share of the cores
