"""Write the log line of each request, and measure how long it took.

A line holds nothing of the patient: no file name, no query value, no tag, no pixel. A request is
identified by its id and the template of its route.
"""

import logging
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.telemetry.metrics import UNMATCHED, Metrics
from app.telemetry.request_trace import RequestTrace, choose_request_id, current, read_trace_id
from app.telemetry.spans import SpanExport

CLIENT_CLOSED_REQUEST = 499
"""Status (nginx's) that counts requests whose client left before the answer."""

logger = logging.getLogger("cxr.access")


class TelemetryMiddleware:
    """Give each request an id, an access log line and a measured duration.

    Pure ASGI: starlette's BaseHTTPMiddleware would hide that a client left.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, span_export: SpanExport | None = None
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._span_export = span_export

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
        export = self._span_export if scope["method"] == "POST" else None
        span = export.begin(trace, headers) if export is not None else None
        status = CLIENT_CLOSED_REQUEST

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = trace.request_id
            await send(message)

        token = current.set(trace)
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            self._record(scope, trace, status)
            if span is not None:
                span.end(scope["method"], route_template(scope), status)
            current.reset(token)

    def _record(self, scope: Scope, trace: RequestTrace, status: int) -> None:
        seconds = time.perf_counter() - trace.started
        route = route_template(scope)
        self._metrics.observe_request(route, status, seconds)
        _log_request(
            scope["method"] if route != UNMATCHED else "-", route, status, seconds, trace.stages_ms
        )


def log_unread(request_id: str, status: int) -> None:
    """Log a request that was answered before it could be read."""
    token = current.set(RequestTrace(request_id))
    _log_request("-", UNMATCHED, status, 0.0, {})
    current.reset(token)


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


def route_template(scope: Scope) -> str:
    """Return the template of a request's route, as `/models/{name}`."""
    return getattr(scope.get("route"), "path", UNMATCHED)
