"""The steps of one request as spans, and their export to a collector.

Nothing is recorded unless the environment names an OTLP collector. OpenTelemetry's SDK is imported
only then (`app.telemetry.otlp`, extra `otel`).
"""

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from app.telemetry.request_trace import RequestTrace, current_trace

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

logger = logging.getLogger("cxr.spans")


@dataclass(frozen=True, slots=True)
class Span:
    """One step of an answer, from and to on `time.perf_counter`'s clock."""

    name: str
    started: float
    ended: float


class SpanExport(Protocol):
    """Sends the spans of requests to a collector, beside the requests."""

    def begin(self, trace: RequestTrace, headers: Mapping[str, str]) -> "RequestSpan | None":
        """Begin the span of a request; return None for a request that is not sampled."""

    def close(self) -> None:
        """Send what waits, for a limited time."""


class RequestSpan(Protocol):
    """The span of one request."""

    def end(self, method: str, route: str, status: int) -> None:
        """Hand the span and its steps to the export, which sends them later."""


def open_span_export(service_version: str) -> SpanExport | None:
    """Return the export to the collector that OpenTelemetry's variables name; None if none does.

    A missing extra is logged and stops nothing: on a cluster an operator may set the variables for
    every container.
    """
    if not is_export_wanted(os.environ):
        return None
    try:
        from app.telemetry.otlp import OtlpExport  # noqa: PLC0415 -- the plain service lacks it
    except ImportError:
        logger.warning("OTEL_EXPORTER_OTLP_ENDPOINT needs the extra otel: no spans are exported")
        return None
    return OtlpExport(service_version)


def is_export_wanted(environ: Mapping[str, str]) -> bool:
    """Tell whether OpenTelemetry's variables name a collector and do not switch it off."""
    return (
        any(environ.get(name) for name in _ENDPOINTS)
        and environ.get("OTEL_SDK_DISABLED", "").strip().lower() != "true"
        and environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() in ("otlp", "")
    )


def record_admission() -> None:
    """Record that the current request is admitted now."""
    trace = current_trace()
    if trace is not None and trace.spans is not None:
        trace.spans.append(Span("admission", trace.started, time.perf_counter()))


def record_span(name: str, started: float, ended: float) -> None:
    """Record a step of the current request, if anybody exports it."""
    trace = current_trace()
    if trace is not None and trace.spans is not None:
        trace.spans.append(Span(name, started, ended))
