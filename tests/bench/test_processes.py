"""A server under test is started, weighed, and leaves nothing behind."""

import sys
import time

import pytest

from bench.processes import DidNotStart, Processes, started

CHILD = "import time; time.sleep(60)"
PARENT = (
    f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', '{CHILD}'], "
    f"start_new_session=True)"
)


def test_children_that_outlive_their_parent_are_found_weighed_and_ended() -> None:
    with started([sys.executable, "-c", f"{PARENT}; time.sleep(0.2)"], {}, lambda: True) as (
        processes,
        _,
    ):
        processes.main.wait()
        child = until_one(processes)
        assert processes.resident_mb() > 1
        assert child != processes.main.pid
    assert processes.alive() == []


def until_one(processes: Processes) -> int:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        alive = processes.alive()
        if len(alive) == 1:
            return alive[0]
        time.sleep(0.05)
    raise AssertionError("the child is not found")


def test_a_server_that_ends_is_reported_with_its_last_words() -> None:
    with (
        pytest.raises(DidNotStart, match="no such thing"),
        started([sys.executable, "-c", "raise SystemExit('no such thing')"], {}, lambda: False),
    ):
        pass
