"""How much of what the cores can decode the whole service answers beside a fast device.

    python -m bench.device --data FILE.dcm               # workers: one a core
    python -m bench.device --data FILE.dcm --workers 3 --rounds 5 --seconds 3

The device is simulated (`bench.simulated_device`), so the cores are the limit. Each round takes in
turn: bare reading on all cores, a process each, as the lean loop reads and as the service reads;
then the service at 16 connections, one connection, and open load at 0.8 of its capacity.

The load generator and the device process share the cores. The processor time of an answer shows
what the service itself takes of them.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import uvloop
from numpy.typing import NDArray

from app.cpu import usable_cores
from bench.changes import current_bundle
from bench.decode_ceiling import read
from bench.figures import Figures, percentile
from bench.openloop import closed_loop, open_loop
from bench.peers.own_reading import read_leanly
from bench.processes import ROOT, Processes
from bench.servers import Running, Server, our_server, running
from bench.uploads import Upload
from cxr.bundle import Bundle

LOAD = 0.8
"""Of the capacity, at which the p99 is compared with a single answer."""


def bare_rate(file: Path, size: int, seconds: float, reader: str) -> tuple[float, float]:
    """Read on all cores at once. Return images a second, and processor milliseconds of one."""
    cores = usable_cores()
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cores, spawning) as pool:
        step = partial(_read_for, file, size, reader)
        list(pool.map(step, [0.2] * cores))
        found = list(pool.map(step, [seconds] * cores))
    return sum(rate for rate, _ in found), statistics.mean(cpu_ms for _, cpu_ms in found)


def _read_for(file: Path, size: int, reader: str, seconds: float) -> tuple[float, float]:
    os.environ["BENCH_SIZE"] = str(size)
    data = file.read_bytes()
    readers: dict[str, Callable[[bytes], NDArray[np.uint8]]] = {
        "lean": read_leanly,
        "own": lambda upload: read(upload, size),
    }
    images = 0
    used_s = time.process_time()
    started = time.perf_counter()
    while time.perf_counter() < started + seconds:
        readers[reader](data)
        images += 1
    used_s = time.process_time() - used_s
    return images / (time.perf_counter() - started), 1000 * used_s / images


def simulated_server(arguments: argparse.Namespace, cache: Path) -> Server:
    """Describe the service whose device sleeps."""
    settings = {
        "workers": str(arguments.workers),
        "device_process": "on",
        "decode_threads": str(arguments.workers * arguments.threads),
        "engine_lanes": "2",
        "engine_threads": "1",
        "max_batch": "32",
    }
    ours = our_server(arguments.store, cache, arguments.model, **settings)
    return replace(ours, command=(sys.executable, "-m", "bench.simulated_device"))


async def serve_round(served: Running, upload: Upload, seconds: float) -> Figures:
    """Ask over sixteen connections, over one, and at Poisson times."""
    target = served.upload(upload)
    with Costs(served.processes) as costs:
        many = await closed_loop(target, connections=16, seconds=seconds)
    answers = len(many.seconds.get(200, []))
    one = await closed_loop(target, connections=1, seconds=seconds / 2)
    rate = LOAD * answers / seconds
    loaded, _ = await open_loop(target, rate=rate, seconds=seconds, patience_s=10.0)
    single_s = statistics.median(one.seconds[200])
    return {
        "per_s": answers / seconds,
        "cpu_ms": 1000 * costs.used_s / max(1, answers),
        "device_cpu_ms": 1000 * costs.device_s / max(1, answers),
        "not_answered": float(sum(many.counts().values()) - answers),
        "single_ms": 1000 * single_s,
        "p99_over_single": percentile(loaded.seconds.get(200, []), 0.99) / single_s,
    }


class Costs:
    """Processor time of the service, and of its device process alone, inside the block."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self.used_s = 0.0
        self.device_s = 0.0

    def __enter__(self) -> Self:
        self._device = _device_process(self._processes)
        self._began = (self._processes.cpu_s(), _processor_s(self._device))
        return self

    def __exit__(self, *_: object) -> None:
        self.used_s = self._processes.cpu_s() - self._began[0]
        self.device_s = _processor_s(self._device) - self._began[1]


def _device_process(processes: Processes) -> int:
    for line in processes.log.read_text(errors="replace").splitlines():
        if "device process started" in line:
            return int(json.loads(line)["pid"])
    raise LookupError("there is no device process")


def _processor_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(arguments: argparse.Namespace, bundle: Bundle, folder: Path) -> list[Figures]:
    """Measure everything in turn, round by round."""
    size = bundle.manifest.input_size
    upload = Upload("dicom", "--data", arguments.data.read_bytes(), "application/dicom")
    found: list[Figures] = []
    with running(simulated_server(arguments, folder / "cache"), upload) as served:
        await closed_loop(served.upload(upload), connections=4, seconds=1.0)
        for _ in range(arguments.rounds):
            bare: Figures = {}
            for reader in ("lean", "own"):
                rate, cpu_ms = await asyncio.to_thread(
                    bare_rate, arguments.data, size, arguments.seconds, reader
                )
                bare |= {f"{reader}_per_s": rate, f"{reader}_cpu_ms": cpu_ms}
            found.append(bare | await serve_round(served, upload, arguments.seconds))
            print(json.dumps(found[-1]), flush=True)
    return found


def with_ratios(one: Figures, cores: int) -> Figures:
    """Add what the goals are stated in."""
    return one | {
        "answers / lean reads": one["per_s"] / one["lean_per_s"],
        "answers / own reads": one["per_s"] / one["own_per_s"],
        "lean read / answer, processor": one["lean_cpu_ms"] / one["cpu_ms"],
        "own read / answer, processor": one["own_cpu_ms"] / one["cpu_ms"],
        "cores that the service had": one["per_s"] * one["cpu_ms"] / 1000,
        "cores": float(cores),
    }


def main() -> None:
    """Measure, and print a table of medians and ranges."""
    parser = argparse.ArgumentParser(
        prog="bench.device",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="a DICOM file of JPEG baseline")
    parser.add_argument("--workers", type=int, default=usable_cores())
    parser.add_argument("--threads", type=int, default=1, help="decode threads of each worker (1)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--store", type=Path, default=ROOT / "model_store")
    parser.add_argument("--model", default="pneumothorax")
    arguments = parser.parse_args()
    bundle = current_bundle(arguments.store, arguments.model)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        rounds = uvloop.run(measure(arguments, bundle, Path(folder)))
    found = [with_ratios(one, usable_cores()) for one in rounds]
    print("\n| | median | range |\n|---|---|---|")
    for name in found[0]:
        values = [one[name] for one in found]
        print(f"| {name} | {statistics.median(values):.2f} | {min(values):.2f}-{max(values):.2f} |")


if __name__ == "__main__":
    main()
