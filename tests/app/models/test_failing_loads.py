"""Versions that fail to load, again and again: nothing of them stays."""

import os
import threading
from pathlib import Path

import pytest

from tests.app.models.test_store import load, spoil
from tests.app.serving import serving, until
from tests.bundles import write_made_bundle

NUM_LOADS = 50
MEBIBYTE = 2**20
MAX_GROWTH_BYTES = 30 * MEBIBYTE
"""Allocators keep some memory; fifty sessions of the made graph alone would take more."""


def num_open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_fifty_loads_that_fail_after_opening_the_graph_leave_nothing(tmp_path: Path) -> None:
    wrong = write_made_bundle(tmp_path, "bright", 1)
    other = write_made_bundle(tmp_path / "elsewhere", "other", 1, size=64)
    (other / "golden.npz").replace(wrong / "golden.npz")
    for _ in range(5):  # what is loaded once and kept, as libraries
        load(tmp_path)
    files = num_open_files()
    threads = threading.active_count()
    memory = resident_bytes()

    for _ in range(NUM_LOADS):
        assert load(tmp_path).model("bright").current is None

    assert num_open_files() <= files
    assert threading.active_count() <= threads
    assert resident_bytes() - memory < MAX_GROWTH_BYTES


@pytest.mark.anyio
async def test_a_current_version_that_was_spoilt_in_place_is_listed_with_its_reason(
    tmp_path: Path,
) -> None:
    bundle = write_made_bundle(tmp_path, "bright", 1)
    async with serving(tmp_path, store_poll_seconds=0.02) as served:
        spoil(bundle)
        await until(lambda: served.classifier.store.model("bright").refused)
        listed = (await served.client.get("/models/bright")).json()["versions"]

    assert [(one["version"], one["state"]) for one in listed] == [(1, "current")]
    assert "hash" in listed[0]["reason"]
