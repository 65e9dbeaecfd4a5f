"""Export the spans of requests over OTLP/HTTP with OpenTelemetry's SDK (extra `otel`).

Nothing else imports OpenTelemetry. A thread of the SDK sends spans in batches from a queue of
limited length; spans that find it full are dropped. So a slow collector, or one that is away,
delays no request.

A span holds the route's template, the method and the status: nothing of the file, the query or the
answer.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from opentelemetry import trace as otel
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.telemetry.request_trace import RequestTrace
from app.telemetry.spans import Span

_CLOSE_S = 2.0
"""Seconds for which the end of the process waits for a collector."""

_CONTEXT_HEADERS = ("traceparent",)
"""Not `tracestate` and not `baggage`, into which a sender may write anything."""


class OtlpExport:
    """Spans on their way to the collector that OpenTelemetry's environment variables name."""

    def __init__(self, service_version: str) -> None:
        """Read the variables and start the thread that sends."""
        stated = OTELResourceDetector().detect().attributes
        named = {"service.name": "cxr-serve", "service.version": service_version, **stated}
        self._provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("cxr-serve", service_version)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, trace: RequestTrace, headers: Mapping[str, str]) -> "_RequestSpan | None":
        """Begin the span of a request, below its sender's if `traceparent` names one.

        The trace id that is chosen here is the one in the log. OTEL_TRACES_SAMPLER and the
        sender's own flag decide whether the request is sampled.
        """
        carrier = {name: headers[name] for name in _CONTEXT_HEADERS if name in headers}
        to_wall_ns = time.time_ns() - time.perf_counter_ns()
        span = self._tracer.start_span(
            "request",
            context=self._propagator.extract(carrier),
            kind=otel.SpanKind.SERVER,
            start_time=_wall_ns(trace.started, to_wall_ns),
        )
        if not span.is_recording():
            return None
        trace.trace_id = otel.format_trace_id(span.get_span_context().trace_id)
        trace.spans = []
        return _RequestSpan(self._tracer, span, trace.spans, to_wall_ns)

    def close(self) -> None:
        """Send what waits, for a limited time."""
        sending = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
        sending.start()
        sending.join(_CLOSE_S)


@dataclass(frozen=True, slots=True)
class _RequestSpan:
    """The span of one request, and the steps that are recorded for it."""

    tracer: otel.Tracer
    span: otel.Span
    steps: list[Span]
    to_wall_ns: int

    def end(self, method: str, route: str, status: int) -> None:
        """Queue the span and its steps; the last step is the answer's way to its sender."""
        ended = time.perf_counter()
        if self.steps:
            answered = max(step.ended for step in self.steps)
            self.steps.append(Span("answer", answered, ended))
        context = otel.set_span_in_context(self.span)
        for step in self.steps:
            child = self.tracer.start_span(
                step.name, context=context, start_time=_wall_ns(step.started, self.to_wall_ns)
            )
            child.end(_wall_ns(step.ended, self.to_wall_ns))
        self.span.update_name(f"{method} {route}")
        self.span.set_attributes(
            {
                "http.request.method": method,
                "http.route": route,
                "http.response.status_code": status,
            }
        )
        if status >= 500:
            self.span.set_status(otel.StatusCode.ERROR)
        self.span.end(_wall_ns(ended, self.to_wall_ns))


def _wall_ns(seconds: float, to_wall_ns: int) -> int:
    """Return a time of `time.perf_counter`'s clock as nanoseconds since 1970."""
    return round(1e9 * seconds) + to_wall_ns
