"""What can happen to a server: it is stopped, others take the cores, or cores are taken away."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.servers import Running

STALL_S = 4.0
HOGS_S = 8.0
NUM_HOGS = 8


@contextmanager
def hogs() -> Iterator[None]:
    """Keep processes busy until the block ends."""
    command = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(command) for _ in range(NUM_HOGS)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
        for process in busy:
            process.wait()


def signal_all(served: Running, number: signal.Signals) -> None:
    """Send a signal to every process of a server."""
    for process in served.processes.alive():
        with suppress(ProcessLookupError):
            os.kill(process, number)


async def stalled(served: Running) -> None:
    signal_all(served, signal.SIGSTOP)
    try:
        await asyncio.sleep(STALL_S)
    finally:
        signal_all(served, signal.SIGCONT)


async def crowded(_served: Running) -> None:
    with hogs():
        await asyncio.sleep(HOGS_S)


def restrict(served: Running, cores: list[int]) -> None:
    """Keep every thread of a server on some cores."""
    for process in served.processes.alive():
        with suppress(OSError):
            for thread in Path(f"/proc/{process}/task").iterdir():
                os.sched_setaffinity(int(thread.name), cores)
