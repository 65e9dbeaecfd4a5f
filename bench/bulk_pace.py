"""Files a second of `bulk` against bare loops, taken in turns, and who used the processor.

One at once is Ray of its own with one worker. Two at once are two nodes of one core each. A bare
loop decodes and runs in one plain process with the same functions.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bulk.archive_parts import Item
from bulk.score import Scorer
from bulk.scoring_job import Options, choose_bundle
from cxr.decode import quiet_libraries

ROOT = Path(__file__).parent.parent
STORE = ROOT / "model_store"
MODEL = "pneumothorax"
SCORING = "scoring"
_NUM_FIRST = 6
"""Files before the time of a bare loop counts: two of each kind."""
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def command(folder: Path, out: Path, *more: str) -> list[str]:
    """Return the words that score a folder with `bulk`."""
    options = ["--model", MODEL, "--store", str(STORE), "--out", str(out)]
    return [sys.executable, "-m", "bulk", str(folder), *options, *more]


@contextmanager
def two_nodes() -> Iterator[Any]:
    """Run a Ray cluster of two nodes with one core each; the head has none to give."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - reads the variable

    cluster = Cluster()
    memory = 128 * 2**20
    # A busy machine answers late; that is no dead node.
    patience = {"health_check_timeout_ms": 60_000, "health_check_failure_threshold": 10}
    cluster.add_node(
        num_cpus=0, include_dashboard=False, object_store_memory=memory, _system_config=patience
    )
    cluster.add_node(num_cpus=1, object_store_memory=memory)
    cluster.add_node(num_cpus=1, object_store_memory=memory)
    cluster.wait_for_nodes()
    try:
        yield cluster
    finally:
        cluster.shutdown()


def pace_test(folder: Path, num_files: int, rounds: int, at_once: Sequence[int]) -> None:
    """Compare files a second with bare loops, one process or worker a core; taken in turns."""
    chosen = sorted(folder.iterdir())[:num_files]
    with tempfile.TemporaryDirectory() as scratch:
        listed = Path(scratch) / "list.txt"
        listed.write_text("\n".join(map(str, chosen)))
        for num_workers in at_once:
            ratios = []
            with two_nodes() if num_workers == 2 else nullcontext() as cluster:
                where = ["--ray", cluster.address] if cluster else ["--workers", "1"]
                for number in range(rounds):
                    bare = num_files / bare_loops(chosen, num_workers)
                    watch = RunWatch(Path(scratch) / f"out-{num_workers}-{number}")
                    subprocess.run(
                        command(listed, watch.out, *where, "--estimate"),
                        cwd=ROOT, capture_output=True, check=True,
                    )  # fmt: skip
                    summary = watch.run(command(listed, watch.out, *where))
                    warm, whole = watch.rates(num_workers)
                    ratios.append(warm / bare)
                    print(
                        f"{num_workers} at once: bare {bare:.1f}/s, Ray {warm:.1f}/s, ratio",
                        f"{ratios[-1]:.3f}; with start and end {whole:.1f}/s, {whole / bare:.3f};",
                        f"core seconds: {watch.shares()}\n{summary}",
                        flush=True,
                    )
            print(
                f"{num_workers} at once: median {statistics.median(ratios):.3f},",
                f"from {min(ratios):.3f} to {max(ratios):.3f}",
                flush=True,
            )


def bare_loops(paths: list[Path], num_processes: int) -> float:
    """Return the seconds of the slowest of some bare loops that share the files."""
    shares = [paths[number::num_processes] for number in range(num_processes)]
    with ProcessPoolExecutor(num_processes, get_context("spawn")) as pool:
        return max(pool.map(bare_loop, shares))


def bare_loop(paths: list[Path]) -> float:
    """Return the seconds that decode and run take in one plain loop."""
    quiet_libraries()
    scorer = Scorer(choose_bundle(STORE, MODEL, None), Options())
    for path in paths[:_NUM_FIRST]:
        scorer.score(Item(str(path), ""), path.read_bytes())
    started = time.perf_counter()
    for path in paths:
        scorer.score(Item(str(path), ""), path.read_bytes())
    seconds = time.perf_counter() - started
    scorer.close()
    return seconds


@dataclass(frozen=True)
class Part:
    """One part of a run, with its begin and end on the clock of its file."""

    rows: int
    began: float
    ended: float

    def rows_between(self, start: float, end: float) -> float:
        """Return how many of its rows were scored then, if all take equally long."""
        seconds = min(end, self.ended) - max(start, self.began)
        return self.rows * max(0.0, seconds / (self.ended - self.began))


class RunWatch:
    """One run of `bulk`, and which of its processes used the processor."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._before: dict[int, float] = {}
        self._used: dict[int, tuple[str, float]] = {}

    def run(self, words: Sequence[str]) -> str:
        """Run the command, and watch its processes from the first part's begin on.

        Returns:
            The command's own summary; its last line says how right the estimate was.
        """
        driver = subprocess.Popen(
            words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        while driver.poll() is None:
            time.sleep(0.25)  # the machine belongs to those that are measured
            for pid, (kind, used) in processes().items():
                known, _ = self._used.get(pid, (kind, used))
                is_scoring = SCORING in (kind, known)  # a worker between two parts is idle
                self._used[pid] = (SCORING if is_scoring else kind or known, used)
            if not self._before and any(self.out.glob("model=*/version=*/.begun-*")):
                self._before = {pid: used for pid, (_, used) in self._used.items()}
        return driver.communicate()[0].strip()

    def rates(self, num_workers: int) -> tuple[float, float]:
        """Return files a second: while all workers had work, and of the whole run.

        A new worker needs some seconds to open its model, and more for its first answers, and at
        the end one waits for the other. The first rate leaves all of this out, from each worker's
        first part to the end of the first that finds no part any more. Bare loops leave out their
        first answers too, and all have equally many files.
        """
        parts = self._parts()
        ends = sorted(part.ended for part in parts)
        start = min(part.began for part in parts)
        warm = max(part.ended for part in parts if part.began < ends[0])
        busy_until = ends[-num_workers]
        rows = sum(part.rows_between(warm, busy_until) for part in parts)
        whole = sum(part.rows for part in parts) / (ends[-1] - start)
        return rows / (busy_until - warm), whole

    def _parts(self) -> list[Part]:
        (folder,) = self.out.glob("model=*/version=*")
        lines = (folder / "_manifest.jsonl").read_text().splitlines()
        entries = [entry for entry in map(json.loads, lines) if "part" in entry]
        parts = []
        for entry in entries:
            ended = (folder / f"part-{entry['part']}.parquet").stat().st_mtime
            parts.append(Part(entry["rows"], ended - entry["seconds"], ended))
        return parts

    def shares(self) -> str:
        """Say how many seconds of a core each kind of process used."""
        kinds: dict[str, float] = {}
        for pid, (kind, used) in self._used.items():
            kinds[kind] = kinds.get(kind, 0.0) + used - self._before.get(pid, 0.0)
        return ", ".join(f"{kind} {used:.1f}" for kind, used in sorted(kinds.items()))


def processes() -> dict[int, tuple[str, float]]:
    """Map each process of this session but this one to its kind and the seconds that it used."""
    session = os.getsid(0)
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and path.name != str(os.getpid()):
                words = (path / "cmdline").read_bytes().decode(errors="replace")
                used = (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND
                found[int(path.name)] = (_kind(words), used)
    return found


def _kind(words: str) -> str:
    if words.startswith("ray::Map") or "cxr.decoder_process" in words or "multiprocessing" in words:
        return SCORING
    if "-m\0bulk" in words:
        return "driver"
    return "Ray's own" if words else ""
