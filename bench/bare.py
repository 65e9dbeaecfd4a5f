"""The limit: decode, preprocess and run in one process that serves nobody.

    python -m bench.bare FILE SECONDS [READER]   # BENCH_GRAPH and BENCH_SIZE as the peers have them

    our_read         as the service reads a file; the default
    read_carefully   pydicom, and a JPEG decoded at a fraction of its size
    read_leanly      the same without pydicom: the JPEG is found by its first bytes

First one thread, which gives the stages, the single answer and the processor time of an image; then
as many threads as there are cores, which give the throughput that no server can exceed by much.
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from bench.peers.own_reading import read_carefully, read_leanly
from bench.peers.reading import CONCURRENT_RUNS, open_session, read, run

Reader = Callable[[bytes], NDArray[np.uint8]]
READERS: dict[str, Reader] = {
    "our_read": read,
    "read_carefully": read_carefully,
    "read_leanly": read_leanly,
}


def main() -> None:
    """Measure, and print one JSON object."""
    data = Path(sys.argv[1]).read_bytes()
    seconds = float(sys.argv[2])
    reader = READERS[sys.argv[3] if len(sys.argv) > 3 else "our_read"]
    sessions = [open_session() for _ in range(CONCURRENT_RUNS)]
    for session in sessions:
        run(session, reader(data))
    print(
        json.dumps(
            {
                **one_thread(data, sessions[0], seconds, reader),
                "per_s": all_threads(data, sessions, seconds, reader),
            }
        )
    )


def one_thread(data: bytes, session: object, seconds: float, reader: Reader) -> dict[str, float]:
    reads, runs = [], []
    used_s, end = time.process_time(), time.perf_counter() + seconds
    while (started := time.perf_counter()) < end:
        image_NHW = reader(data)
        was_read = time.perf_counter()
        run(session, image_NHW)
        reads.append(was_read - started)
        runs.append(time.perf_counter() - was_read)
    return {
        "cpu_ms": 1000 * (time.process_time() - used_s) / len(runs),
        "single_ms": 1000 * median(a + b for a, b in zip(reads, runs, strict=True)),
        "read_ms": 1000 * median(reads),
        "run_ms": 1000 * median(runs),
    }


def all_threads(data: bytes, sessions: list[object], seconds: float, reader: Reader) -> float:
    counts = [0] * len(sessions)
    started = time.perf_counter()

    def repeat(number: int) -> None:
        while time.perf_counter() < started + seconds:
            run(sessions[number], reader(data))
            counts[number] += 1

    threads = [threading.Thread(target=repeat, args=(number,)) for number in range(len(sessions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
