"""What all tests share: the real data where there is any, and an eye on skips."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SKIPS = {
    line.strip()
    for line in (ROOT / "tests/skips.txt").read_text().splitlines()
    if line and not line.startswith("#")
}


SLOW_FOLDERS = {
    "containers",
    "e2e",
    "examples",
    "packaging",
    "pacs",
    "site",
    "training",
}
"""Folders whose tests train, or start a browser, a container, an archive or a notebook."""
QUICK_FOLDERS = {("training", "stats"), ("training", "recipe")}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that `make test-fast` leaves out."""
    for item in items:
        folders = item.path.relative_to(ROOT / "tests").parts
        if folders[0] in SLOW_FOLDERS and folders[:2] not in QUICK_FOLDERS:
            item.add_marker("slow")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real radiographs; the test is skipped where there is none."""
    path = ROOT / os.environ.get("TEST_DATA", "../shared/data")
    if not path.is_dir():
        pytest.skip("no real radiographs: TEST_DATA names no folder")
    return path


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Turn a skip whose reason nobody wrote down into a failure."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):  # type: ignore[attr-defined]
        reason = str(report.longrepr[2]).removeprefix("Skipped: ")  # type: ignore[attr-defined]
        if reason not in SKIPS:
            report.outcome = "failed"  # type: ignore[attr-defined]
            report.longrepr = f"skipped for a reason that tests/skips.txt does not list: {reason}"  # type: ignore[attr-defined]
    return report
