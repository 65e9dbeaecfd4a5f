"""Measure how long runs of an open graph take, by the size of the batch. They draw no map, as
most requests want none.

Shape suffixes: N images, H and W input rows and columns.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier

import numpy as np
from numpy.typing import NDArray

from cxr.graph import Graph

BUDGET_S = 0.25
"""Seconds that one way of running a graph is measured for."""

_WORTH = 1.1
"""How many times quicker a larger batch must be for each image to be chosen."""

_AS_QUICK = 1.05
"""Times the seconds of two runs that one run of two may take and still count as free: that much two
measurements differ."""

_ROUNDS = 3
"""Times that each size of a batch is timed; the best counts."""

_FEWEST_RUNS = 4
"""Runs of each run slot that make a rate, however long they take."""

_LEAST_SHARE = 0.8
"""Share of one core that a measurement must have had, for its figures to be kept."""

Clock = Callable[[], float]
"""Seconds from some moment on."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """By what is measured; a test brings its own."""

    wall: Clock = time.perf_counter
    processor: Clock = time.process_time
    """Counts only while a thread of this process runs, and each of them."""


@dataclass(frozen=True, slots=True)
class RunTimes:
    """The best seconds of a run by the size of its batch."""

    seconds: Mapping[int, float]
    core_share: float
    """Processor time of the measurement over its time on the clock."""

    @property
    def is_disturbed(self) -> bool:
        """Tell whether other processes had the cores meanwhile. A GPU leaves the core idle too."""
        return self.core_share < _LEAST_SHARE

    def smallest_good_batch(self) -> int:
        """Return the smallest batch that no larger one beats by much for each image."""
        best_s = min(took / count for count, took in self.seconds.items())
        smallest = min(
            count for count, took in self.seconds.items() if took / count <= _WORTH * best_s
        )
        return 2 if smallest == 1 and self._pairs_are_free() else smallest

    def _pairs_are_free(self) -> bool:
        """Tell whether a run of two takes no longer than two runs, or nothing speaks against it.

        A pair saves what a run needs besides the graph, and weights that lie in no cache are read
        once for both.
        """
        if 2 not in self.seconds:
            return False
        return self.is_disturbed or self.seconds[2] <= 2 * _AS_QUICK * self.seconds[1]

    def line(self) -> tuple[float, float]:
        """Return the seconds that each image adds, and those that every run takes."""
        small = min(self.seconds)
        large = max(self.seconds)
        if small == large:
            return self.seconds[small] / small, 0.0
        slope = (self.seconds[large] - self.seconds[small]) / (large - small)
        slope = min(max(0.0, slope), self.seconds[small] / small)
        return slope, self.seconds[small] - slope * small


def buckets(largest: int) -> tuple[int, ...]:
    """Return the powers of two below the largest size, and that size."""
    return (*(2**power for power in range(7) if 2**power < largest), largest)


def time_batches(graph: Graph, side: int, counts: Iterable[int], clocks: Clocks) -> RunTimes:
    """Time a run at each size of a batch, for as long as the budget lasts, but at least of two.

    Each round takes all sizes in turn: a moment in which other processes have the cores spoils one
    round of several sizes, not all rounds of one.
    """
    wall_began = clocks.wall()
    processor_began = clocks.processor()
    seconds: dict[int, float] = {}
    longest_s = 0.0
    for count in counts:
        is_over = clocks.wall() + 4 * 2 * longest_s > wall_began + BUDGET_S  # four runs of it
        if is_over and count > 2:  # pairs are always measured
            break
        batch_NHW = black(count, side)
        graph.run(batch_NHW, with_map=False)
        seconds[count] = longest_s = _time(graph, batch_NHW, clocks.wall)
    for _ in range(_ROUNDS - 1):
        for count, best_s in seconds.items():
            seconds[count] = min(best_s, _time(graph, black(count, side), clocks.wall))
    wall_s = max(clocks.wall() - wall_began, 1e-9)
    return RunTimes(seconds, (clocks.processor() - processor_began) / wall_s)


def processor_seconds(
    graph: Graph, batch_NHW: NDArray[np.uint8], slots: int, clocks: Clocks
) -> float:
    """Measure the processor time of one image with all run slots busy.

    While requests wait, the cores are full and this alone decides how many are answered. Unlike the
    time on the clock, it does not depend on other processes on the same cores.
    """
    warm(graph, batch_NHW, slots)
    started = clocks.processor()
    end = clocks.wall() + BUDGET_S / 2

    def run() -> int:
        runs = 0
        while clocks.wall() < end or runs < _FEWEST_RUNS:
            graph.run(batch_NHW, with_map=False)
            runs += 1
        return runs

    with ThreadPoolExecutor(slots) as threads:
        running = [threads.submit(run) for _ in range(slots)]
        num_runs = sum(future.result() for future in running)
    return (clocks.processor() - started) / (num_runs * len(batch_NHW))


def warm(graph: Graph, batch_NHW: NDArray[np.uint8], slots: int) -> None:
    """Run a batch on all run slots at once, so that each has its memory before anything counts."""
    together = Barrier(slots)

    def run() -> None:
        together.wait()
        graph.run(batch_NHW)

    with ThreadPoolExecutor(slots) as threads:
        for future in [threads.submit(run) for _ in range(slots)]:
            future.result()


def black(count: int, side: int) -> NDArray[np.uint8]:
    """Return a batch of black images, uint8 [N, H, W]."""
    return np.zeros((count, side, side), np.uint8)


def _time(graph: Graph, batch_NHW: NDArray[np.uint8], clock: Clock) -> float:
    started = clock()
    graph.run(batch_NHW, with_map=False)
    return clock() - started
