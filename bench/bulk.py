"""Prove `python -m bulk`: every file exactly once, whatever dies; and what Ray costs.

python -m bench.bulk make FOLDER --files 20000     made radiographs of three kinds
python -m bench.bulk kill FOLDER --out OUT         two nodes; a worker, the driver, a node die
python -m bench.bulk pace FOLDER --files 600       files a second against the bare loop, interleaved
"""

import argparse
import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import httpx
import pyarrow as pa

from bench.bulk_files import make_files
from bench.bulk_pace import ROOT, STORE, command, pace_test, two_nodes
from bulk import read_results
from tests.server import running_server

FIRST_KILL = 0.2
SECOND_KILL = 0.4
THIRD_KILL = 0.8
"""Shares of the files after which a worker, the driver and a node are killed."""


def kill_test(folder: Path, out: Path) -> None:
    """Score a folder on two nodes; kill a worker, then the driver, then a node; check every row.

    An interrupted test goes on from here; what was killed before is not killed again.
    """
    num_files = len(list(folder.iterdir()))
    with two_nodes() as cluster:
        address = ["--ray", cluster.address]
        if done(out) == 0:
            print(say(command(folder, out, *address, "--estimate")), flush=True)
        started = time.monotonic()
        driver = start(command(folder, out, *address))
        if done(out) < FIRST_KILL * num_files:
            wait_for(out, FIRST_KILL * num_files, driver)
            (victim, *_) = workers()
            os.kill(victim, signal.SIGKILL)
            print(f"killed worker {victim} after {done(out)} files", flush=True)
        if done(out) < SECOND_KILL * num_files:
            wait_for(out, SECOND_KILL * num_files, driver)
            driver.send_signal(signal.SIGKILL)
            driver.wait()
            print(f"killed the driver after {done(out)} files", flush=True)
            driver = start(command(folder, out, *address))
        wait_for(out, THIRD_KILL * num_files, driver)
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
        print(f"killed a node after {done(out)} files", flush=True)
        output, _ = driver.communicate()
        print(
            output.strip(),
            f"\nexit {driver.returncode}, {time.monotonic() - started:.0f} s",
            flush=True,
        )
    check(folder, out)


def check(folder: Path, out: Path) -> None:
    """Check that every file has one row, and that rows equal the service's answers."""
    columns = ["path", "probability", "label", "problem"]
    table = read_results(out).to_table(columns=columns)
    paths = table["path"].to_pylist()
    wanted = {str(path.resolve()) for path in folder.iterdir()}
    print(
        f"{len(paths)} rows, {len(set(paths))} distinct, {len(wanted)} files, same:",
        set(paths) == wanted,
    )
    answers = dict(
        zip(
            paths, zip(*(table[name].to_pylist() for name in columns[1:]), strict=True), strict=True
        )
    )
    drawings = {path.stem.partition("-")[2]: path for path in folder.iterdir()}
    worst = 0.0
    with (
        tempfile.TemporaryDirectory() as scratch,
        running_server(STORE, Path(scratch) / "log") as server,
    ):
        expected = {name: predict(server.url, path) for name, path in drawings.items()}
    for path, (probability, label, problem) in answers.items():
        answer = expected[Path(path).stem.partition("-")[2]]
        assert (problem, label) == (None, answer["label"]), path
        worst = max(worst, abs(probability - answer["probability"]))
    print(
        f"largest difference from /predict, over all rows and {len(drawings)} drawings: {worst:.2g}"
    )


def predict(url: str, path: Path) -> dict[str, object]:
    response = httpx.post(f"{url}/predict", content=path.read_bytes(), timeout=60)
    response.raise_for_status()
    return dict(response.json())


def start(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def say(words: list[str]) -> str:
    return subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


def done(out: Path) -> int:
    manifests = list(out.glob("model=*/version=*/_manifest.jsonl"))
    if not manifests:
        return 0
    lines = pa.py_buffer(manifests[0].read_bytes()).to_pybytes().splitlines()
    return sum(json.loads(line)["rows"] for line in lines if line.endswith(b"}"))


def wait_for(out: Path, num_files: float, driver: subprocess.Popen[str]) -> None:
    while done(out) < num_files:
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.2)


def workers() -> list[int]:
    """The processes that score a part now; Ray has others, whose death is a node's."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::Map") and is_ours(int(path.parent.name)):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def is_ours(pid: int) -> bool:
    """Tell whether this process started another one, or its parents did."""
    while pid > 1 and pid != os.getpid():
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pid == os.getpid()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("make", "kill", "check", "pace"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=Path("bulk-proof"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 2], choices=(1, 2))
    options = parser.parse_args()
    if options.what == "make":
        make_files(options.folder, options.files)
    elif options.what == "kill":
        kill_test(options.folder, options.out)
    elif options.what == "check":
        check(options.folder, options.out)
    else:
        pace_test(options.folder, options.files, options.rounds, options.at_once)


if __name__ == "__main__":
    main()
