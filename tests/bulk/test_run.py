"""The command itself, on a Ray of its own. A start of Ray takes seconds, so these tests are few."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bulk import read_results
from tests.factories import chest, make_png

ROOT = Path(__file__).parents[2]
NUM_FILES = 260


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A folder of more files than fit into one part; some are no radiographs."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(NUM_FILES):
        data = make_png(chest(96, 96, seed=number)) if number % 10 else b"no radiograph"
        (folder / f"{number:04}").write_bytes(data)
    return folder


def command(source: Path, store: Path, out: Path, *more: str) -> list[str]:
    options = ["--model", "bright", "--store", str(store), "--out", str(out), "--workers", "2"]
    return [sys.executable, "-m", "bulk", str(source), *options, *more]


def bulk(source: Path, store: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(source, store, out, *more),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def paths(out: Path) -> list[str]:
    """The paths of all rows, as a reader finds them."""
    return sorted(read_results(out).to_table()["path"].to_pylist())


@pytest.mark.timeout(900)
def test_a_driver_that_is_killed_leaves_what_it_did_and_the_next_run_does_the_rest(
    many: Path, store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    manifest = out / "model=bright/version=1/_manifest.jsonl"
    with subprocess.Popen(command(many, store, out), cwd=ROOT) as driver:
        while not (manifest.exists() and manifest.read_bytes()):
            assert driver.poll() is None
            time.sleep(0.01)
        os.kill(driver.pid, signal.SIGKILL)
    killed_after = len(manifest.read_bytes().splitlines())

    rest = bulk(many, store, out)

    assert rest.returncode == 0, rest.stderr
    assert paths(out) == sorted(map(str, many.iterdir()))
    assert 1 <= killed_after <= 3
    assert f"{NUM_FILES} rows of {NUM_FILES} files in 3 parts" in rest.stdout
    assert "26 files have a problem code" in rest.stdout
    assert str(many) not in rest.stdout + rest.stderr  # a path may hold a name

    again = bulk(
        many, store, out, "--ray", "nowhere:1"
    )  # with nothing left to do Ray is not even asked

    assert again.returncode == 0, again.stderr
    assert f"{NUM_FILES} rows of {NUM_FILES} files in 3 parts; 0 are new" in again.stdout


def test_answers_inside_the_source_are_refused(many: Path, store: Path) -> None:
    result = bulk(many, store, many / "out")

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "bulk: --out lies in the source; choose a folder outside\n"


def test_an_unknown_model_is_refused(many: Path, tmp_path: Path) -> None:
    result = bulk(many, tmp_path / "no-store", tmp_path / "out")

    assert result.returncode == 1
    assert "has no model bright" in result.stderr


def test_a_cluster_that_is_not_there_is_said_in_a_sentence(
    many: Path, store: Path, tmp_path: Path
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"

        result = bulk(many, store, tmp_path / "out", "--ray", address)

    assert (result.returncode, result.stdout) == (1, "")
    assert "bulk: Ray can't be started or reached: [Errno 111] Connection refused" in result.stderr
    assert "Traceback" not in result.stderr
