"""The limit: decode, preprocess and run in one process that serves nobody.

    python -m bench.bare FILE SECONDS      # BENCH_GRAPH and BENCH_SIZE as the peers have them

First one thread, which gives the stages, the single answer and the processor time of an image; then
as many threads as there are cores, which give the throughput that no server can exceed by much."""

import json
import sys
import threading
import time
from pathlib import Path
from statistics import median

from bench.peers.reading import CONCURRENT_RUNS, open_session, read, run


def main() -> None:
    """Measure, and print one JSON object."""
    data, seconds = Path(sys.argv[1]).read_bytes(), float(sys.argv[2])
    sessions = [open_session() for _ in range(CONCURRENT_RUNS)]
    for session in sessions:
        run(session, read(data))
    print(
        json.dumps(
            {
                **one_thread(data, sessions[0], seconds),
                "per_s": all_threads(data, sessions, seconds),
            }
        )
    )


def one_thread(data: bytes, session: object, seconds: float) -> dict[str, float]:
    reads, runs = [], []
    used_s, end = time.process_time(), time.perf_counter() + seconds
    while (started := time.perf_counter()) < end:
        image_NHW = read(data)
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


def all_threads(data: bytes, sessions: list[object], seconds: float) -> float:
    counts = [0] * len(sessions)
    started = time.perf_counter()

    def repeat(number: int) -> None:
        while time.perf_counter() < started + seconds:
            run(sessions[number], read(data))
            counts[number] += 1

    threads = [threading.Thread(target=repeat, args=(number,)) for number in range(len(sessions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
