"""HTTP/1.1 on a socket: uvicorn's protocol, made stricter.

- A client that sends its headers too slowly, or without an end, is refused. So is one that goes on
  sending a body long after its answer.
- A request without exactly one Host, or with a transfer coding other than chunked, is refused.
- Trailers never become headers. An offer to change the protocol is ignored.
- A refusal waits for the answers to earlier requests of its connection, and is a problem document.
- No work is begun for a client that has left. If too many connections are open, the one that has
  kept the service waiting longest makes room.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.api.answer_budget import ABORT
from app.api.throttle import IS_HERE
from app.api.upload import ON_LEAVE
from app.errors import Overloaded
from app.server.backpressure import PipelineFlow
from app.server.client_left import has_left, is_here
from app.server.open_connections import ConnectionLimits, UnreadAnswer, make_room
from app.server.refusal import Refusal, Refused, authority_of, body_length, check_headers
from app.telemetry import CLIENT_CLOSED_REQUEST, Metrics

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

_MAX_HEAD_BYTES = 64 * 1024
"""Limit for the bytes of a request besides its body: headers, trailers, framing of chunks."""

_MAX_TARGET_BYTES = 8 * 1024
"""Limit for a request's target. Tens of thousands of parameters would hold the event loop up."""

_TOO_LONG = Refusal("malformed_request", f"The headers have more than {_MAX_HEAD_BYTES} bytes.")

_NO_HTTP = Refusal("malformed_request", "This is no HTTP request.")

_MAX_PIPELINED = 16
"""Requests of one connection that may wait; a slice may bring some more."""

_SLICE_BYTES = 4096
"""Bytes that are parsed before the limit is checked again."""


class ProblemProtocol(HttpToolsProtocol):
    """One connection."""

    limits: ClassVar[ConnectionLimits] = ConnectionLimits()
    flow: PipelineFlow
    metrics: ClassVar[Metrics]
    _timer: asyncio.TimerHandle | None = None
    _is_message_open = False
    _are_headers_read = False
    _num_head_bytes = 0
    _num_beside_body = 0
    _num_body_left = 0
    _unparsed = b""
    _refusal: Refusal | None = None
    _running: "RequestResponseCycle | None" = None
    _waits_since = 0.0

    @property
    def waits_since(self) -> float | None:
        """Time since which the service waits for the client; None if it works for the client."""
        running = self._running
        is_working = running is not None and not (running.response_complete or running.more_body)
        return None if is_working and not self.flow.write_paused else self._waits_since

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, and wait a limited time for its first headers."""
        super().connection_made(transport)
        self.flow = PipelineFlow(transport)
        self.unread = UnreadAnswer()
        self._on_leave = set[Callable[[], None]]()
        self._waits_since = self.loop.time()
        self.metrics.open_connections.inc()
        if has_left(transport):  # the client did not wait for the connection to be accepted
            self._drop()
            return
        is_full = len(self.connections) > self.limits.max_connections
        if is_full and not make_room(self.connections, self, self.metrics):  # type: ignore[arg-type]
            self.metrics.dropped_connections.labels("refused").inc()
            detail = "Too many connections are open."
            status = self.limits.overload_status
            self._refuse(Refusal(Overloaded.code, detail, status=status))
        else:
            self._await_headers()

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, in slices within the limits."""
        self._unset_keepalive_if_required()
        self._unparsed += data
        self._parse_on()

    def _parse_on(self) -> None:
        """Parse while few requests wait in the pipeline; else keep the rest, and read no more."""
        left = memoryview(self._unparsed)
        while left and self._refusal is None and not self.transport.is_closing():
            if len(self.pipeline) >= _MAX_PIPELINED:
                break
            size = max(_SLICE_BYTES, self._num_body_left)
            self._parse(left[:size])
            left = left[size:]
            if self._num_beside_body > _MAX_HEAD_BYTES:
                self._refuse(_TOO_LONG)
        is_full = len(self.pipeline) >= _MAX_PIPELINED
        self._unparsed = bytes(left) if is_full else b""
        self.flow.hold_reading(is_full)

    def _parse(self, data: memoryview) -> None:
        self._num_beside_body += len(data)
        try:
            while True:
                try:
                    self.parser.feed_data(data)
                    return
                except HttpParserUpgrade as upgrade:
                    data = data[upgrade.args[0] :]
                    self._read_without_upgrade()
        except Refused as error:
            self._refuse(error.refusal)
        except HttpParserError as error:
            reason = error.__context__
            self._refuse(reason.refusal if isinstance(reason, Refused) else _NO_HTTP)

    def _read_without_upgrade(self) -> None:
        """Parse a request's head again without its offer of another protocol.

        A server may ignore an `Upgrade` (RFC 9110, 7.8). The parser takes the bytes behind such a
        head for the other protocol, and would read a body as further requests.
        """
        method = self.parser.get_method()
        version = self.parser.get_http_version().encode()
        if method == b"CONNECT":
            raise Refused("malformed_request", "This is no proxy.")
        lines = [b"%s: %s\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._num_beside_body = 0
        self.parser.feed_data(
            b"%s %s HTTP/%s\r\n%s\r\n" % (method, self.url, version, b"".join(lines))
        )

    def on_message_begin(self) -> None:
        """Wait a limited time for the headers of each further request."""
        super().on_message_begin()
        transport = self.transport
        extensions: Any = {
            ABORT: transport.abort,
            IS_HERE: partial(is_here, transport),
            ON_LEAVE: self._on_leave,
        }
        self.scope["extensions"] = extensions
        self._is_message_open = True
        self._are_headers_read = False
        self._num_head_bytes = 0
        if self._running is None or self._running.response_complete:
            self._waits_since = self.loop.time()
        self._await_headers()

    def on_url(self, url: bytes) -> None:
        """Collect the request's target."""
        self._count_head(len(url))
        if self._num_head_bytes > _MAX_TARGET_BYTES:
            raise Refused(
                "malformed_request", f"The target has more than {_MAX_TARGET_BYTES} bytes."
            )
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header; ignore a trailer (RFC 9110, 6.5.1)."""
        self._count_head(len(name) + len(value) + 4)
        if not self._are_headers_read:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin the request; if it offers another protocol, it is parsed again without that."""
        self._are_headers_read = True
        if self.parser.should_upgrade():
            return
        check_headers(self.headers, self.parser.get_http_version())
        authority = authority_of(self.url)
        if authority:  # an absolute target replaces the Host (RFC 9112, 3.2.2)
            others = [header for header in self.headers if header[0] != b"host"]
            self.headers[:] = [(b"host", authority), *others]
        self._num_body_left = body_length(self.headers)
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body, which allows for as many bytes of framing."""
        self._num_beside_body -= 2 * len(body)
        self._num_body_left = max(0, self._num_body_left - len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request was read to its end."""
        if self.parser.should_upgrade():
            return
        self._is_message_open = False
        self._num_beside_body = 0
        self._num_body_left = 0
        self._stop_waiting()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Send a refusal that waits, or read on; an unfinished body has a limited time to end."""
        self._waits_since = self.loop.time()
        super().on_response_complete()  # begins the next request that waits, if any
        is_last = self._running is not None and self._running.response_complete
        if self._unparsed:
            self.loop.call_soon(self._parse_on)
        if self._refusal is not None and is_last:
            self._send_refusal(self._refusal)
        elif self._is_message_open and is_last and self._timer is None:
            self._timer = self.loop.call_later(self.limits.header_timeout_s, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        self.metrics.open_connections.dec()
        self._stop_waiting()
        super().connection_lost(exc)
        for leave in tuple(self._on_leave):
            leave()

    def timeout_keep_alive_handler(self) -> None:
        """Close a silent connection, unless its next request is there but was not read yet."""
        close = super().timeout_keep_alive_handler
        self.timeout_keep_alive_task = self.loop.call_later(self.limits.last_look_s, close)

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that can't be parsed, and close the connection."""
        self._refuse(Refusal("malformed_request", msg))

    def _count_head(self, num_bytes: int) -> None:
        self._num_head_bytes += num_bytes
        if self._num_head_bytes > _MAX_HEAD_BYTES:
            raise Refused(_TOO_LONG.code, _TOO_LONG.detail)

    def _start_asgi_task(self, cycle: "RequestResponseCycle", app: "ASGI3Application") -> None:
        """Begin no work for a request whose client left while it waited to be read."""
        self._running = cycle
        if has_left(self.transport):
            self._drop()
        else:
            super()._start_asgi_task(cycle, app)

    def _drop(self) -> None:
        self.metrics.count_unread("client_gone", CLIENT_CLOSED_REQUEST)
        self.transport.abort()

    def _await_headers(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.limits.header_timeout_s, self._look_again)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_again(self) -> None:
        self._timer = self.loop.call_later(self.limits.last_look_s, self._give_up)

    def _give_up(self) -> None:
        detail = f"The headers did not arrive within {self.limits.header_timeout_s:g} seconds."
        # Browsers and load balancers open connections in advance, and may never use them.
        self._refuse(Refusal("slow_client", detail, counts=self._num_beside_body > 0))

    def _refuse(self, refusal: Refusal) -> None:
        """Read no further, and answer with a problem after all earlier requests."""
        if self._refusal is not None or self.transport.is_closing():
            return
        self._stop_waiting()
        self._refusal = refusal
        is_own = self._is_in_work
        if is_own and self.pipeline and self.pipeline[0][0] is self.cycle:
            self.pipeline.popleft()  # it waited behind another request and has done no work
            is_own = False
        running = self._running
        if running is None or running.response_complete or (is_own and running is self.cycle):
            self._send_refusal(refusal)

    @property
    def _is_in_work(self) -> bool:
        """Whether the request that is being read has been begun already."""
        return self._is_message_open and self.cycle is not None and self.cycle.scope is self.scope

    def _send_refusal(self, refusal: Refusal) -> None:
        # A request that has its answer, and whose client still sends, gets no second one.
        if not (self._is_in_work and self.cycle.response_started):
            self.transport.write(refusal.write(self.metrics))
        self.transport.close()


def make_protocol(limits: ConnectionLimits, metrics: Metrics) -> type[ProblemProtocol]:
    """Return the protocol with limits for its connections, and with the metrics to count in."""
    return type("ProblemProtocol", (ProblemProtocol,), {"limits": limits, "metrics": metrics})
