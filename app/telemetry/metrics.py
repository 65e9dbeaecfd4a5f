"""The service's Prometheus metrics: their names, labels and help texts.

No label holds anything of the patient: no file name, no query value, no tag, no pixel.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from app.telemetry.late_observations import MOST_WAITING, LateObservations
from app.telemetry.request_trace import current_trace
from app.telemetry.spans import record_span

Stage = Literal["receive", "decode", "preprocess", "queue", "run", "interpret"]

UNMATCHED = "unmatched"
"""Route of a request with an unknown path. The path itself could hold anything."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


_MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""Set if several processes share their metrics."""


class RequestMetrics:
    """Requests and the stages of their answers."""

    def __init__(self, registry: CollectorRegistry, late: LateObservations) -> None:
        self._late = late
        self.request_duration = Histogram(
            "cxr_request_duration_seconds", "From headers read to answer sent.", ("route",
            "status"),
            registry=registry, buckets=_SECONDS,
        )  # fmt: skip
        self.stage_duration = Histogram(
            "cxr_stage_duration_seconds", "Time that one stage of an answer took.", ("stage",),
            registry=registry, buckets=_SECONDS,
        )  # fmt: skip
        self._stages = {
            stage: self.stage_duration.labels(stage).observe for stage in get_args(Stage)
        }
        self._requests: dict[tuple[str, int], Callable[[float], object]] = {}
        self.rejections = Counter(
            "cxr_rejections",
            "Requests and files without an answer, by problem.",
            ("reason",),
            registry=registry,
        )

    def count_unread(self, reason: str, status: int) -> None:
        """Count a request that was never read: no HTTP, too late, or its client left."""
        self.rejections.labels(reason).inc()
        self.request_duration.labels(UNMATCHED, str(status)).observe(0.0)

    def observe_request(self, route: str, status: int, seconds: float) -> None:
        """Record the time of one request."""
        observe = self._requests.get((route, status))
        if observe is None:
            observe = self.request_duration.labels(route, str(status)).observe
            self._requests[route, status] = observe
        self._late.add(observe, seconds)

    def observe_stage(self, stage: Stage, seconds: float) -> None:
        """Record the time of one stage in the metrics and in the current request's log line."""
        self._late.add(self._stages[stage], seconds)
        trace = current_trace()
        if trace is not None:
            trace.stages_ms[stage] = round(trace.stages_ms.get(stage, 0.0) + 1000 * seconds, 3)

    @contextmanager
    def time_stage(self, stage: Stage) -> Iterator[None]:
        """Record how long the block takes."""
        started = time.perf_counter()
        try:
            yield
        finally:
            ended = time.perf_counter()
            self.observe_stage(stage, ended - started)
            record_span(stage, started, ended)


class AnswerMetrics:
    """What was answered, and how it was run."""

    def __init__(self, registry: CollectorRegistry, late: LateObservations) -> None:
        self._late = late
        self._answers: dict[tuple[str, int, str], Callable[[float], object]] = {}
        self._probabilities: dict[str, Callable[[float], object]] = {}
        self.batch_size = Histogram(
            "cxr_batch_size",
            "Images in one run of a graph.",
            registry=registry,
            buckets=(1, 2, 4, 8, 16, 32, 64),
        )
        self.queue_depth = Gauge(
            "cxr_queue_depth", "Images that wait for their run, or in the thread that decodes "
                               "them for it.",
            registry=registry, multiprocess_mode="livesum",
        )  # fmt: skip
        self.predictions = Counter(
            "cxr_predictions", "Answers given.", ("model", "version", "label"), registry=registry
        )
        self.probability = Histogram(
            "cxr_probability", "Probabilities given.", ("model",),
            registry=registry, buckets=[tenth / 10 for tenth in range(1, 11)],
        )  # fmt: skip
        self.warnings = Counter(
            "cxr_warnings", "Warnings given with answers.", ("code",), registry=registry
        )

    def observe_batch(self, num_images: int) -> None:
        """Record one run of a graph; in any thread."""
        self._late.add(self.batch_size.observe, num_images)

    def observe_answer(self, model: str, version: int, label: str, probability: float) -> None:
        """Record one answer."""
        of_answer = (model, version, label)
        if of_answer not in self._answers:
            self._answers[of_answer] = self.predictions.labels(model, str(version), label).inc
            self._probabilities[model] = self.probability.labels(model).observe
        self._late.add(self._answers[of_answer], 1)
        self._late.add(self._probabilities[model], probability)


class WorkerMetrics:
    """Worker processes, and the work that they have."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.workers = Gauge(
            "cxr_workers",
            "Worker processes that run: those that answer, and those that do not now.",
            ("state",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.workers_configured = Gauge(
            "cxr_workers_configured",
            "Worker processes that should run.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.backlog = Gauge(
            "cxr_backlog_seconds",
            "Expected seconds until all that is in flight is answered; of the busiest worker.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.capacity = Gauge(
            "cxr_capacity_per_second",
            "Uploads that can be answered in a second, as the latest ones were.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.replaced_workers = Counter(
            "cxr_replaced_workers", "Workers replaced after they died or hung.", registry=registry
        )
        self.replaced_device_processes = Counter(
            "cxr_replaced_device_processes", "Device processes replaced.", registry=registry
        )


class ConnectionMetrics:
    """Connections, and the log."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.open_connections = Gauge(
            "cxr_open_connections",
            "Connections that are open.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.dropped_connections = Counter(
            "cxr_dropped_connections",
            "Connections closed for a client that sends or reads too slowly, or for want of room.",
            ("reason",),
            registry=registry,
        )
        self.dropped_log_lines = Counter(
            "cxr_dropped_log_lines", "Log lines that nobody read in time.", registry=registry
        )


class ModelMetrics:
    """Versions of the models."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.refused_bundles = Gauge(
            "cxr_refused_bundles", "Versions in the store that are refused now.", ("model",),
            registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip
        self.bundle_opening = Gauge(
            "cxr_bundle_opening_seconds",
            "Seconds for which a version is being opened now; 0 if none is.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.model_info = Gauge(
            "cxr_model_info", "1 for each version that serves, 0 for one that did.", ("model",
            "version", "sha256", "provider"),
            registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip

    def count_refused(self, model: str, num_refused: int | None) -> None:
        """Set how many versions of a model are refused; None if the model is gone."""
        gauge = self.refused_bundles.labels(model)
        gauge.set(num_refused or 0)
        if num_refused is None and _MULTIPROCESS not in os.environ:
            self.refused_bundles.remove(model)  # files of several processes keep every label


class Metrics(RequestMetrics, AnswerMetrics, WorkerMetrics, ConnectionMetrics, ModelMetrics):
    """The service's Prometheus metrics, for one or several worker processes.

    If `PROMETHEUS_MULTIPROC_DIR` was set before prometheus_client was first imported, values live
    in files of that folder and `render` adds up all processes. There each observation is made at
    once: another process may read the files at any time, or this one be killed.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        late = LateObservations(1 if _MULTIPROCESS in os.environ else MOST_WAITING)
        self.registry.register(late)
        RequestMetrics.__init__(self, self.registry, late)
        AnswerMetrics.__init__(self, self.registry, late)
        WorkerMetrics.__init__(self, self.registry)
        ConnectionMetrics.__init__(self, self.registry)
        ModelMetrics.__init__(self, self.registry)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics in the format that a scraper accepts, and its media type."""
        encode, media_type = choose_encoder(accept)
        registry = self.registry
        if _MULTIPROCESS in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return encode(registry), media_type
