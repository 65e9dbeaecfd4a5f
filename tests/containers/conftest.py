"""One image and one composed stack for all container tests, and their figures at the end."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.containers.compose import ROOT, Stack, has_engine
from tests.factories import chest, make_dicom, make_jpeg, make_png
from tests.server import free_port

_FIGURES = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep a place for the figures."""
    config.stash[_FIGURES] = {}


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what was measured: docs/deploy.md has a table of the same lines."""
    if config.stash[_FIGURES]:
        terminalreporter.section("figures")
    for name, value in config.stash[_FIGURES].items():
        terminalreporter.write_line(f"{name:44} {value}")


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> dict[str, str]:
    """What was measured, by name."""
    return request.config.stash[_FIGURES]


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of bundles to mount: the shipped ones."""
    path = tmp_path_factory.mktemp("volume") / "store"
    shutil.copytree(ROOT / "model_store", path)
    subprocess.run(["chmod", "-R", "a+rX", str(path)], check=True)
    return path


@pytest.fixture(scope="session")
def stack(store: Path) -> Iterator[Stack]:
    """Build the image, start everything that a bare `docker compose up` starts, and take it all
    down again."""
    if not has_engine():
        pytest.skip("no container engine on this machine")
    stack = Stack("cxr-test", store, free_port(), free_port())
    stack.compose("down", "--volumes")
    stack.compose("build", "--quiet")
    try:
        stack.compose("up", "--detach", "--wait")
        yield stack
    finally:
        stack.compose("down", "--volumes", "--timeout", "20")


@pytest.fixture(scope="session")
def files() -> dict[str, bytes]:
    """Radiographs by name: real ones where there are any, and made ones in every format."""
    made = {
        f"made-{seed}": make(chest(512, 448, seed=seed))
        for seed, make in enumerate((make_dicom, make_png, make_jpeg), start=1)
    }
    data = ROOT / "../shared/data"
    real = [
        *sorted(data.glob("siim/**/*.dcm"))[:3],
        *sorted(data.glob("pneumonia/train/*/*.jpeg"))[:3],
    ]
    return made | {path.name: path.read_bytes() for path in real}


@pytest.fixture(scope="session")
def expected(stack: Stack, files: dict[str, bytes]) -> dict[str, float]:
    """The probability of each file, asked for alone."""
    return {name: ask(stack, data) for name, data in files.items()}


def ask(stack: Stack, data: bytes) -> float:
    """Ask for one file's probability."""
    answer = httpx.post(
        f"{stack.url}/predict",
        content=data,
        headers={"content-type": "application/octet-stream"},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    return float(answer.json()["probability"])
