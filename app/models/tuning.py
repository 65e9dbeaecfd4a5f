"""Open graphs the way this machine runs them best: measured once, remembered, and warm before
anybody asks.

    open(bundle)    a plan: remembered from an earlier start, or measured now where the settings
                    leave a choice
                    the graph, proved on its golden images, run once at every size of a batch

Shape suffixes: N images, H and W input rows and columns.
"""

import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Barrier
from typing import Literal, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from cxr.bundle import Bundle
from cxr.graph import Graph, Runtime
from cxr.graph.runtime import Cancellation

logger = logging.getLogger("cxr.engine")

_BUDGET_S = 0.25
"""Seconds that one way of running a graph is measured for."""

_WORTH = 1.1
"""How many times quicker a larger batch must be for each image to be chosen."""

_CLEARLY = 1.5
"""How many times less of the processor another way of running must take for an image to be
chosen."""

_ROUNDS = 3
"""Times that each size of a batch is timed; the best counts."""

_FEWEST_RUNS = 4
"""Runs of each lane that make a rate, however long they take."""

_MAX_CPU_BATCH = 8
_MAX_GPU_BATCH = 64


Clock = Callable[[], float]
"""Seconds from some moment on."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """By what is measured; a test brings its own."""

    wall: Clock = time.perf_counter
    processor: Clock = time.process_time
    """Counts only while a thread of this process runs, and each of them."""


class GraphOpener(Protocol):
    """Opens a bundle's graph and proves it; `cxr.graph.open_graph`, or a test's own."""

    def __call__(self, bundle: Bundle, runtime: Runtime) -> Graph:
        """Open the graph; raises `BundleError`."""
        ...


@dataclass(frozen=True, slots=True)
class ExecutionPlan:
    """How batches of one graph are run, and what a run takes."""

    run_slots: int
    """Batches that run at once."""
    threads: int
    """Threads of one run on the CPU."""
    max_batch: int
    seconds_per_image: float
    seconds_per_run: float = 0.0
    """What a run takes besides its images."""
    source: Literal["measured", "remembered"] = "measured"


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the settings decide; 0 leaves it to measuring."""

    run_slots: int = 0
    threads: int = 0
    max_batch: int = 0


class Tuner:
    """Opens the graphs of one service process; what it measures, it keeps in a folder where it may
    write.
    """

    def __init__(
        self,
        opener: GraphOpener,
        runtime: Runtime,
        *,
        cores: int,
        overrides: Overrides,
        clocks: Clocks = Clocks(),
    ) -> None:
        self._clocks = clocks
        self._opener = opener
        self._runtime = runtime
        self._cores = cores
        self._overrides = overrides
        self._plans: dict[str, ExecutionPlan] = {}

    def open(
        self, bundle: Bundle, cancellation: Cancellation | None = None
    ) -> tuple[Graph, ExecutionPlan]:
        """Open, prove and warm a bundle's graph; blocks. Raises `BundleError`."""
        self._runtime = replace(self._runtime, cancellation=cancellation)
        model = bundle.manifest.model
        plan = self._plans.get(model) or self._recall(bundle)
        if plan is None:
            plan = self._measure(bundle)
            self._remember(bundle, plan)
        # Opened anew after measuring: an engine keeps the memory of the largest batch that it ever
        # ran.
        graph = self._opener(bundle, self._runtime_of(plan.run_slots, plan.threads, plan.max_batch))
        for size in self._sizes(plan.max_batch):
            _warm(graph, _black(size, bundle.manifest.input_size), plan.run_slots)
        self._plans[model] = (
            # for the next version: beside live traffic nothing can be measured but the traffic
            plan
        )
        facts = {
            "model": model,
            "version": bundle.manifest.version,
            "cores": self._cores,
            **asdict(plan),
        }
        logger.info(
            "graph opened", extra={**facts, "engine": graph.engine, "precision": graph.precision}
        )
        return graph, plan

    def _measure(self, bundle: Bundle) -> ExecutionPlan:
        """Try every way that the settings leave open, and take the usual one unless another is
        clearly thriftier.
        """
        tried = [self._try(bundle, *way) for way in self._ways()]
        usual = tried[0][1]
        if len(tried) == 1:
            return usual
        rounds = [
            [self._processor_seconds(graph, plan, bundle) for graph, plan in tried]
            for _ in range(2)
        ]
        seconds = [min(of_way) for of_way in zip(*rounds, strict=True)]
        best = min(range(len(tried)), key=seconds.__getitem__)
        return tried[best][1] if _CLEARLY * seconds[best] < seconds[0] else usual

    def _ways(self) -> Iterator[tuple[int, int]]:
        """Return lanes and threads that together never exceed the cores, the usually best first;
        all models take the same.
        """
        overrides, cores = self._overrides, self._cores
        chosen = next(iter(self._plans.values()), None)
        if chosen is not None:
            yield chosen.run_slots, chosen.threads
        elif self._runtime.device == "gpu":
            yield (
                overrides.run_slots or 2,
                overrides.threads or 1,
            )  # one fills its batch while the other runs
        elif overrides.run_slots or overrides.threads:
            yield (
                overrides.run_slots or max(1, cores // overrides.threads),
                overrides.threads or max(1, cores // overrides.run_slots),
            )
        else:
            yield cores, 1
            if cores > 1:
                yield 1, cores

    def _try(self, bundle: Bundle, run_slots: int, threads: int) -> tuple[Graph, ExecutionPlan]:
        """Measure one way: what runs take, and so which batch is worth it."""
        graph = self._opener(bundle, self._runtime_of(run_slots, threads, self._largest))
        seconds = _time_batches(
            graph, bundle.manifest.input_size, _buckets(self._largest), self._clocks.wall
        )
        max_batch = self._overrides.max_batch or _smallest_good(seconds)
        return graph, ExecutionPlan(run_slots, threads, max_batch, *_line(seconds))

    def _processor_seconds(self, graph: Graph, plan: ExecutionPlan, bundle: Bundle) -> float:
        """Measure what one image takes of the processor with all lanes busy.

        While requests wait, the cores are full and this alone decides how many are answered; unlike
        the time on the clock, it is not that of other processes on the same cores.
        """
        batch_NHW = _black(plan.max_batch, bundle.manifest.input_size)
        _warm(graph, batch_NHW, plan.run_slots)
        started, end = self._clocks.processor(), self._clocks.wall() + _BUDGET_S / 2

        def run() -> int:
            runs = 0
            while self._clocks.wall() < end or runs < _FEWEST_RUNS:
                graph.run(batch_NHW)
                runs += 1
            return runs

        with ThreadPoolExecutor(plan.run_slots) as threads:
            runs = sum(
                future.result() for future in [threads.submit(run) for _ in range(plan.run_slots)]
            )
        return (self._clocks.processor() - started) / (runs * len(batch_NHW))

    @property
    def _largest(self) -> int:
        return self._overrides.max_batch or (
            _MAX_GPU_BATCH if self._runtime.device == "gpu" else _MAX_CPU_BATCH
        )

    def _runtime_of(self, run_slots: int, threads: int, max_batch: int) -> Runtime:
        """Say how a graph is to be opened; only a GPU pays for each new size, so only there are
        batches filled up.
        """
        buckets = _buckets(max_batch) if self._runtime.device == "gpu" else ()
        return replace(self._runtime, run_slots=run_slots, threads=threads, buckets=buckets)

    def _sizes(self, max_batch: int) -> tuple[int, ...]:
        """Return every size that a batch may be run at."""
        return (
            _buckets(max_batch) if self._runtime.device == "gpu" else tuple(range(1, max_batch + 1))
        )

    def _recall(self, bundle: Bundle) -> ExecutionPlan | None:
        """Return the plan that an earlier start made for the same graph on the same machine."""
        path = self._memory_of(bundle)
        if path is None or not path.exists():
            return None
        try:
            return ExecutionPlan(
                **(json.loads(path.read_text(encoding="utf-8")) | {"source": "remembered"})
            )
        except (OSError, ValueError, TypeError):
            return None

    def _remember(self, bundle: Bundle, plan: ExecutionPlan) -> None:
        """Keep a plan for the next start, where that can be written; it appears whole or not at
        all.
        """
        path = self._memory_of(bundle)
        if path is None:
            return
        draft = path.with_suffix(f".{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(asdict(plan)), encoding="utf-8")
            draft.replace(path)
        except OSError:
            logger.info("the plan can't be kept; the next start measures again")

    def _memory_of(self, bundle: Bundle) -> Path | None:
        """Name the file of a plan by everything that it depends on."""
        if self._runtime.cache_dir is None:
            return None
        runtime, overrides = self._runtime, self._overrides
        facts = (
            bundle.sha256, runtime.name, runtime.precision, processor(), self._cores,
            ort.__version__,
            overrides.run_slots, overrides.threads, overrides.max_batch,
        )  # fmt: skip
        return (
            self._runtime.cache_dir
            / "plans"
            / f"{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}.json"
        )


def processor() -> str:
    """Name the processor's model, as the kernel does where it is Linux."""
    with suppress(OSError):
        for line in (
            Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        ):
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _buckets(largest: int) -> tuple[int, ...]:
    """Return the powers of two below the largest size, and that size."""
    return (*(2**power for power in range(7) if 2**power < largest), largest)


def _time_batches(graph: Graph, size: int, counts: Iterable[int], clock: Clock) -> dict[int, float]:
    """Measure a run at each size of a batch, for as long as the budget lasts; each round takes all
    sizes in turn.

    So a moment in which other processes have the cores spoils one round of several sizes, not all
    rounds of one.
    """
    seconds: dict[int, float] = {}
    deadline = clock() + _BUDGET_S
    longest_s = 0.0
    for count in counts:
        if clock() + 4 * 2 * longest_s > deadline:  # four runs of twice the size
            break
        batch_NHW = _black(count, size)
        graph.run(batch_NHW)
        seconds[count] = longest_s = _time(graph, batch_NHW, clock)
    for _ in range(_ROUNDS - 1):
        seconds = {
            count: min(best_s, _time(graph, _black(count, size), clock))
            for count, best_s in seconds.items()
        }
    return seconds


def _time(graph: Graph, batch_NHW: NDArray[np.uint8], clock: Clock) -> float:
    started = clock()
    graph.run(batch_NHW)
    return clock() - started


def _smallest_good(seconds: Mapping[int, float]) -> int:
    """Choose the smallest batch that no larger one beats by much: larger ones cost memory, and
    others their time.
    """
    best = min(took / count for count, took in seconds.items())
    return min(count for count, took in seconds.items() if took / count <= _WORTH * best)


def _line(seconds: Mapping[int, float]) -> tuple[float, float]:
    """Return the seconds that each image adds and that every run takes, from the smallest and the
    largest batch.
    """
    small, large = min(seconds), max(seconds)
    if small == large:
        return seconds[small] / small, 0.0
    slope = min(
        max(0.0, (seconds[large] - seconds[small]) / (large - small)), seconds[small] / small
    )
    return slope, seconds[small] - slope * small


def _warm(graph: Graph, batch_NHW: NDArray[np.uint8], run_slots: int) -> None:
    """Run a batch on all lanes at once, so that each has its memory before anything counts."""
    together = Barrier(run_slots)

    def run() -> None:
        together.wait()
        graph.run(batch_NHW)

    with ThreadPoolExecutor(run_slots) as threads:
        for future in [threads.submit(run) for _ in range(run_slots)]:
            future.result()


def _black(count: int, size: int) -> NDArray[np.uint8]:
    return np.zeros((count, size, size), np.uint8)
