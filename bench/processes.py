"""The processes of one server under test: start it, wait until it answers, weigh it, and leave none
behind.

A server's processes are its descendants, and whoever still carries its mark in the environment
after their parents are gone; nothing is ever ended by its name."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
MEBIBYTE = 2**20
MAX_START_S = 90.0
MAX_STOP_S = 5.0


class DidNotStart(Exception):
    """A server gave no answer in time; the message has the end of what it said."""


@dataclass
class Processes:
    """A started server."""

    main: subprocess.Popen[bytes]
    mark: str
    log: Path
    seen: dict[int, bytes] = field(default_factory=dict)
    """Every process of it that was ever seen: when it started, for numbers are given again."""

    def alive(self) -> list[int]:
        """Find the server's processes that live now."""
        stats = {process: fields for process in _all() if (fields := _stat(process))}
        found = {process for process in stats if self.seen.get(process) == _started(stats[process])}
        found |= {process for process in stats if self.mark.encode() in _read(process, "environ")}
        found |= {self.main.pid} & stats.keys()
        while more := {process for process in stats if int(stats[process][1]) in found} - found:
            found |= more
        self.seen |= {process: _started(stats[process]) for process in found}
        return sorted(found)

    def resident_mb(self) -> float:
        """Add up what each process holds in memory; what several share counts for each, as `ps` has
        it."""
        pages = sum(
            int((_read(process, "statm").split() or [b"0", b"0"])[1]) for process in self.alive()
        )
        return pages * os.sysconf("SC_PAGE_SIZE") / MEBIBYTE

    def cpu_s(self) -> float:
        """Add up the processor time that all have used, with that of children which have ended."""
        return sum(_cpu_ticks(process) for process in self.alive()) / TICKS_PER_S

    def stop(self) -> None:
        """End them: the first by SIGTERM, whatever is left after a while by SIGKILL."""
        self.alive()
        self.main.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.main.wait(MAX_STOP_S)
        deadline = time.monotonic() + MAX_STOP_S
        while left := self.alive():
            for process in left:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            self.main.poll()
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)


@contextmanager
def started(
    command: list[str], environment: Mapping[str, str], answers: Callable[[], bool]
) -> Iterator[tuple[Processes, float]]:
    """Run a server until the block ends; gives its processes and the seconds until it answered.

    Raises:
        DidNotStart: it ended, or was silent for too long.
    """
    mark = f"bench-{uuid.uuid4().hex}"
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    own = {
        **clean_environment(),
        "PYTHONPATH": str(ROOT),
        "BENCH_MARK": mark,
        "TMPDIR": str(folder),
        **environment,
    }
    with (folder / "log").open("wb") as log:
        began = time.perf_counter()
        main = subprocess.Popen(
            command, cwd=ROOT, env=own, stdout=log, stderr=log, start_new_session=True
        )
        processes = Processes(main, mark, folder / "log")
        try:
            while not answers():
                if main.poll() is not None or time.perf_counter() - began > MAX_START_S:
                    raise DidNotStart(_last_words(folder / "log"))
                time.sleep(0.02)
            yield processes, time.perf_counter() - began
        finally:
            processes.stop()
            main.wait()
            shutil.rmtree(folder, ignore_errors=True)


def clean_environment() -> dict[str, str]:
    """Give this process's environment without what would change a server's settings."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("CXR_", "BENCH_"))
    }


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][-200:] if lines else "it said nothing"


def _all() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _read(process: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{process}/{name}").read_bytes()
    except OSError:  # it has ended, or is another user's
        return b""


def _stat(process: int) -> list[bytes]:
    """Give the fields of proc(5)'s stat from the third on, none of a process that has ended.

    The second, a name in brackets, may hold anything.
    """
    fields = _read(process, "stat").rpartition(b")")[2].split()
    return fields if fields and fields[0] != b"Z" else []


def _started(fields: list[bytes]) -> bytes:
    return fields[19]


def _cpu_ticks(process: int) -> int:
    return sum(map(int, _stat(process)[11:15]))
