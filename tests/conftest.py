"""What all tests share: the real data where there is any, and an eye on skips."""

import os
from collections.abc import Callable, Iterator
from multiprocessing.spawn import get_executable, set_executable
from pathlib import Path

import pytest

# Before torch is imported, here and in what tests start. Threads of several processes that wait for
# each other on the same cores take several times as long as one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parent.parent
SKIPS = {
    line.strip()
    for line in (ROOT / "tests/skips.txt").read_text().splitlines()
    if line and not line.startswith("#")
}


SLOW = {
    "app/server/test_device_process.py",
    "app/server/test_process.py",
    "app/server/test_supervisor.py",
    "app/test_main.py",
    "app/test_span_export.py",
    "bulk/test_run.py",
    "containers",
    "contract/test_dicom_results.py",
    "contract/test_field.py",
    "contract/test_hostile_senders.py",
    "contract/test_open_inference_clients.py",
    "contract/test_openapi.py",
    "contract/test_phi_leaks.py",
    "contract/test_polarity_equivalence.py",
    "contract/test_real_files.py",
    "deploy",
    "e2e",
    "examples",
    "gateway/test_flow.py",
    "packaging",
    "pacs",
    "site",
    "training",
}
"""Folders and files whose tests train, start many processes, or a browser, an archive, a
container or a notebook."""
QUICK = {"training/recipe", "training/stats"}
LONGEST = (
    "examples/test_notebook.py",
    "training/experiments",
    "app/server/test_device_process.py",
    "app/server/test_supervisor.py",
    "training/bundle",
    "e2e/test_page.py",
    "app/server/test_process.py",
    "training/fit",
    "app/inference/test_admission.py",
    "app/test_span_export.py",
    "e2e",
    "app/test_main.py",
    "gateway/test_flow.py",
    "gateway/test_http_routes.py",
    "gateway/test_receive.py",
    "training/model",
    "training/evaluation",
    "contract/test_openapi.py",
    "contract/test_field.py",
    "bulk/test_run.py",
    "app/inference/test_decoders.py",
    "app/server/test_open_connections.py",
    "app/test_store_watcher.py",
    "cxr_client/test_client.py",
    "site",
)
"""Files whose tests take longest in all, the longest first. So none of them is begun last, while
the other processes have nothing left to do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, and mark the tests that `make test-fast` leaves out."""
    items.sort(key=lambda item: _rank(item.path))
    for item in items:
        if _names(item.path) & SLOW and not _names(item.path) & QUICK:
            item.add_marker("slow")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Spare `make test-fast` the imports of what it leaves out; torch alone takes seconds."""
    if config.option.markexpr != "not slow" or not _names(collection_path) & SLOW:
        return None
    is_quick = _names(collection_path) & QUICK
    holds_quick = any(Path(quick).is_relative_to(_name(collection_path)) for quick in QUICK)
    return None if is_quick or holds_quick else True


def _name(path: Path) -> str:
    return path.relative_to(ROOT / "tests").as_posix()


def _rank(path: Path) -> int:
    """Return the place of a file's first name in `LONGEST`; all others come behind."""
    names = _names(path)
    return next((at for at, name in enumerate(LONGEST) if name in names), len(LONGEST))


def _names(path: Path) -> set[str]:
    """Return a path inside tests/, and all its folders."""
    inside = path.relative_to(ROOT / "tests")
    return {inside.as_posix(), *(folder.as_posix() for folder in inside.parents)}


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


@pytest.fixture
def no_process_starts() -> Iterator[Callable[[], None]]:
    """Let every new process end at once, until what the fixture gives is called."""
    python = get_executable()
    set_executable("/bin/false")
    yield lambda: set_executable(python)
    set_executable(python)
