"""Measure and log requests: metrics, the trace of the current request, and its log line."""

from app.telemetry.metrics import Metrics, Stage
from app.telemetry.request_log import (
    CLIENT_CLOSED_REQUEST,
    TelemetryMiddleware,
    log_unread,
    route_template,
)
from app.telemetry.request_trace import (
    RequestTrace,
    choose_request_id,
    current_request_id,
    current_trace,
    read_trace_id,
)
from app.telemetry.spans import SpanExport, open_span_export, record_admission, record_span

__all__ = [
    "CLIENT_CLOSED_REQUEST",
    "Metrics",
    "RequestTrace",
    "SpanExport",
    "Stage",
    "TelemetryMiddleware",
    "choose_request_id",
    "current_request_id",
    "current_trace",
    "log_unread",
    "open_span_export",
    "read_trace_id",
    "record_admission",
    "record_span",
    "route_template",
]
