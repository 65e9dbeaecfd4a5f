"""Open graphs the way this machine runs them best: measured once, kept, and warm before the first
request.

    open(bundle)    a plan: kept from an earlier start, or measured now if the settings leave a
                    choice
                    the graph, proved on its golden images, run once at every size of a batch
"""

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from app.models.execution_plan import ExecutionPlan, Overrides, PlanCache
from app.models.freed_memory import return_freed_memory
from app.models.run_times import (
    Clocks,
    RunTimes,
    black,
    buckets,
    processor_seconds,
    time_batches,
    warm,
)
from app.settings import Settings
from cxr.bundle import Bundle
from cxr.graph import Graph, Runtime
from cxr.graph.runtime import Cancellation

logger = logging.getLogger("cxr.engine")

_CLEARLY = 1.5
"""How many times less of the processor another way of running must take for an image to be
chosen."""

_MAX_CPU_BATCH = 8
_MAX_GPU_BATCH = 64


class GraphOpener(Protocol):
    """Opens a bundle's graph and proves it; `cxr.graph.open_graph`, or a test's own."""

    def __call__(self, bundle: Bundle, runtime: Runtime) -> Graph:
        """Open the graph; raises `BundleError`."""
        ...


@dataclass(frozen=True, slots=True)
class _Tried:
    """One way of running a graph that was measured."""

    graph: Graph
    plan: ExecutionPlan
    times: RunTimes


class Tuner:
    """Opens the graphs of one service process, and measures how they run best."""

    def __init__(
        self,
        opener: GraphOpener,
        runtime: Runtime,
        *,
        cores: int,
        overrides: Overrides,
        clocks: Clocks | None = None,
    ) -> None:
        self._clocks = clocks or Clocks()
        self._opener = opener
        self._runtime = runtime
        self._cores = cores
        self._overrides = overrides
        self._plans: dict[str, ExecutionPlan] = {}
        self._cache = PlanCache(runtime, cores, overrides)

    def open(
        self, bundle: Bundle, cancellation: Cancellation | None = None
    ) -> tuple[Graph, ExecutionPlan]:
        """Open, prove and warm a bundle's graph; blocks. Raises `BundleError`."""
        self._runtime = replace(self._runtime, cancellation=cancellation)
        try:
            return self._open(bundle)
        finally:
            self._runtime = replace(self._runtime, cancellation=None)
            if cancellation is not None:
                cancellation.end()

    def _open(self, bundle: Bundle) -> tuple[Graph, ExecutionPlan]:
        model = bundle.manifest.model
        plan = self._plans.get(model) or self._cache.recall(bundle) or self._measure(bundle)
        # Opened anew after measuring: an engine keeps the memory of the largest batch that it ever
        # ran.
        graph = self._opener(bundle, self._runtime_of(plan.run_slots, plan.threads, plan.max_batch))
        for size in self._sizes(plan.max_batch):
            warm(graph, black(size, bundle.manifest.input_size), plan.run_slots)
        return_freed_memory()
        self._plans[model] = plan  # the next version is not measured beside live traffic
        logger.info(
            "graph opened",
            extra={
                "model": model,
                "version": bundle.manifest.version,
                "cores": self._cores,
                **asdict(plan),
                "engine": graph.engine,
                "precision": graph.precision,
            },
        )
        return graph, plan

    def _measure(self, bundle: Bundle) -> ExecutionPlan:
        """Try every way that the settings leave open, and keep the plan for the next start.

        The usual way is taken unless another is clearly thriftier. A plan that was measured while
        other processes had the cores is not kept.
        """
        tried = [self._try(bundle, *way) for way in self._ways()]
        best = self._thriftiest(bundle, tried)
        if self._runtime.device == "cpu" and any(one.times.is_disturbed for one in tried):
            logger.info("the machine was busy: the plan is not kept for the next start")
        else:
            self._cache.keep(bundle, best.plan)
        return best.plan

    def _thriftiest(self, bundle: Bundle, tried: list[_Tried]) -> _Tried:
        """Return the usual way, or one that takes clearly less of the processor for an image."""
        if len(tried) == 1:
            return tried[0]
        rounds = [
            [
                processor_seconds(
                    one.graph,
                    black(min(one.plan.max_batch, _MAX_CPU_BATCH), bundle.manifest.input_size),
                    one.plan.run_slots,
                    self._clocks,
                )
                for one in tried
            ]
            for _ in range(2)
        ]
        seconds = [min(of_way) for of_way in zip(*rounds, strict=True)]
        best = min(range(len(tried)), key=seconds.__getitem__)
        return tried[best] if _CLEARLY * seconds[best] < seconds[0] else tried[0]

    def _ways(self) -> Iterator[tuple[int, int]]:
        """Return run slots and threads that together never exceed the cores, the usual way first.

        All models take the same.
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

    def _try(self, bundle: Bundle, run_slots: int, threads: int) -> _Tried:
        """Measure one way: what runs take, and so which batch is worth it."""
        graph = self._opener(bundle, self._runtime_of(run_slots, threads, self._largest))
        times = time_batches(
            graph, bundle.manifest.input_size, buckets(self._largest), self._clocks
        )
        max_batch = self._overrides.max_batch or times.smallest_good_batch()
        return _Tried(graph, ExecutionPlan(run_slots, threads, max_batch, *times.line()), times)

    @property
    def _largest(self) -> int:
        return self._overrides.max_batch or (
            _MAX_GPU_BATCH if self._runtime.device == "gpu" else _MAX_CPU_BATCH
        )

    def _runtime_of(self, run_slots: int, threads: int, max_batch: int) -> Runtime:
        """Return how a graph is opened.

        Only a GPU pays for each new size, so only there batches are filled up.
        """
        sizes = buckets(max_batch) if self._runtime.device == "gpu" else ()
        return replace(self._runtime, run_slots=run_slots, threads=threads, buckets=sizes)

    def _sizes(self, max_batch: int) -> Iterable[int]:
        """Return the sizes of a batch that are run before the first request.

        On a GPU these are all that there are. On a CPU a batch runs at its own size: all small
        ones, and few of the large ones, which take long and gain little.
        """
        if self._runtime.device == "gpu":
            return buckets(max_batch)
        small = range(1, min(max_batch, _MAX_CPU_BATCH) + 1)
        return sorted({*small, *buckets(max_batch)})


def make_tuner(settings: Settings, opener: GraphOpener, *, cores: int) -> Tuner:
    """Return what opens graphs as the settings say, for a process that has so many cores."""
    runtime = Runtime(
        engine=settings.engine,
        device=settings.device,
        precision=settings.precision,
        gpu_memory_bytes=settings.gpu_memory_bytes,
        cache_dir=_own_folder(settings.cache_dir),
    )
    overrides = Overrides(
        run_slots=settings.engine_lanes,
        threads=settings.engine_threads,
        max_batch=settings.max_batch,
    )
    return Tuner(opener, runtime, cores=cores, overrides=overrides)


def _own_folder(folder: Path) -> Path | None:
    """Return a folder unless it belongs to another user, who could have put anything into it."""
    try:
        owner = folder.stat(follow_symlinks=False).st_uid
    except OSError:  # not there yet
        return folder
    return folder if not hasattr(os, "getuid") or owner in (0, os.getuid()) else None
