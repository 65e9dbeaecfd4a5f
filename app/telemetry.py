"""Request ids, JSON logs, stage times and Prometheus metrics.

A log line or a metric holds nothing of the patient: no file name, no query value, no tag, no pixel.
A request is identified by its id and the template of its route.
"""

import logging
import os
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Stage = Literal["receive", "decode", "preprocess", "queue", "run", "interpret"]

CLIENT_CLOSED_REQUEST = 499
"""Status (nginx's) that counts requests whose client left before the answer."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_TRACEPARENT = re.compile(
    r"(?=00-.{52}\Z|(?!00|ff))"  # version 00 has this length; a later one may say more at the end
    r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?"
)
"""W3C Trace Context, section 3.2."""
_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")

logger = logging.getLogger("cxr.access")


class Metrics:
    """The service's Prometheus metrics, for one or several worker processes.

    If `PROMETHEUS_MULTIPROC_DIR` was set before prometheus_client was first imported, values live
    in files of that folder and `render` adds up all processes.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.request_duration = Histogram(
            "cxr_request_duration_seconds", "From headers read to answer sent.", ("route",
            "status"),
            registry=registry, buckets=_SECONDS,
        )  # fmt: skip
        self.stage_duration = Histogram(
            "cxr_stage_duration_seconds", "Time that one stage of an answer took.", ("stage",),
            registry=registry, buckets=_SECONDS,
        )  # fmt: skip
        self._stages = {stage: self.stage_duration.labels(stage) for stage in get_args(Stage)}
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
        self.rejections = Counter(
            "cxr_rejections",
            "Requests and files without an answer, by problem.",
            ("reason",),
            registry=registry,
        )
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
            "cxr_replaced_workers",
            "Workers that took the place of one that died or hung.",
            registry=registry,
        )
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
            "cxr_dropped_log_lines",
            "Lines that were not written because the log was not read in time.",
            registry=registry,
        )
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

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics in the format that a scraper accepts, and its media type."""
        encode, media_type = choose_encoder(accept)
        registry = self.registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return encode(registry), media_type

    def count_unread(self, reason: str, status: int) -> None:
        """Count a request that was never read: no HTTP, too late, or its client left."""
        self.rejections.labels(reason).inc()
        self.request_duration.labels(UNMATCHED, str(status)).observe(0.0)

    def count_refused(self, model: str, num_refused: int | None) -> None:
        """Set how many versions of a model are refused; None if the model is gone."""
        gauge = self.refused_bundles.labels(model)
        gauge.set(num_refused or 0)
        if num_refused is None and "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            self.refused_bundles.remove(model)  # files of several processes keep every label

    def observe_stage(self, stage: Stage, seconds: float) -> None:
        """Record the time of one stage in the metrics and in the current request's log line."""
        self._stages[stage].observe(seconds)
        trace = _current.get()
        if trace is not None:
            trace.stages_ms[stage] = round(trace.stages_ms.get(stage, 0.0) + 1000 * seconds, 3)

    @contextmanager
    def time_stage(self, stage: Stage) -> Iterator[None]:
        """Record how long the block takes."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.observe_stage(stage, time.perf_counter() - started)


@dataclass(slots=True)
class RequestTrace:
    """Id, start time and stages of the current request."""

    request_id: str
    started: float = field(default_factory=time.perf_counter)
    stages_ms: dict[str, float] = field(default_factory=dict)
    trace_id: str | None = None
    """Of the distributed trace that the request belongs to, if its sender named one."""


_current: ContextVar[RequestTrace | None] = ContextVar("current_request", default=None)


def current_trace() -> RequestTrace | None:
    """Return what is known of the current request; None outside of one."""
    return _current.get()


def current_request_id() -> str:
    """Return the id of the current request, or an empty text outside of one."""
    trace = _current.get()
    return trace.request_id if trace else ""


def choose_request_id(sent: str | None) -> str:
    """Return the sender's id if it is short and plain, else a new one.

    The id is no secret, so Python's own generator makes it. A call of the kernel would release
    the interpreter lock, and the event loop would wait for decoding threads to get it back.
    """
    return sent if sent and _SANE_ID.fullmatch(sent) else f"{random.getrandbits(128):032x}"


def read_trace_id(traceparent: str | None) -> str | None:
    """Return the trace id of a W3C `traceparent` header; None for one that is not valid."""
    match = _TRACEPARENT.fullmatch(traceparent or "")
    return match[1] if match else None


class TelemetryMiddleware:
    """Give each request an id, an access log line and a measured duration.

    Pure ASGI: starlette's BaseHTTPMiddleware would hide that a client left.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and note the status of its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        trace = RequestTrace(
            choose_request_id(headers.get("x-request-id")),
            trace_id=read_trace_id(headers.get("traceparent")),
        )
        status = CLIENT_CLOSED_REQUEST

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = trace.request_id
            await send(message)

        token = _current.set(trace)
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            self._record(scope, trace, status)
            _current.reset(token)

    def _record(self, scope: Scope, trace: RequestTrace, status: int) -> None:
        seconds = time.perf_counter() - trace.started
        route = route_template(scope)
        self._metrics.request_duration.labels(route, str(status)).observe(seconds)
        _log_request(
            scope["method"] if route != UNMATCHED else "-", route, status, seconds, trace.stages_ms
        )


def log_unread(request_id: str, status: int) -> None:
    """Log a request that was answered before it could be read."""
    token = _current.set(RequestTrace(request_id))
    _log_request("-", UNMATCHED, status, 0.0, {})
    _current.reset(token)


def _log_request(
    method: str, route: str, status: int, seconds: float, stages_ms: dict[str, float]
) -> None:
    duration_ms = round(1000 * seconds, 3)
    facts = {
        "method": method,
        "route": route,
        "status": status,
        "duration_ms": duration_ms,
        "stages_ms": stages_ms,
    }
    logger.info("request", extra=facts)


UNMATCHED = "unmatched"
"""Route of a request with an unknown path. The path itself could hold anything."""


def route_template(scope: Scope) -> str:
    """Return the template of a request's route, as `/models/{name}`."""
    return getattr(scope.get("route"), "path", UNMATCHED)
