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

__all__ = [
    "CLIENT_CLOSED_REQUEST",
    "Metrics",
    "RequestTrace",
    "Stage",
    "TelemetryMiddleware",
    "choose_request_id",
    "current_request_id",
    "current_trace",
    "log_unread",
    "read_trace_id",
    "route_template",
]
