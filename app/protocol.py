"""How the service speaks HTTP on a socket: uvicorn's protocol, with four manners added.

A client whose headers do not arrive in time is cut off, so is one that goes on sending a
body long after its answer; a request whose client has left already begins no work; and bytes
that are no HTTP are answered by a problem document, as everything else is.
"""

import asyncio
import socket
from typing import TYPE_CHECKING, ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.problems import PROBLEM_MEDIA_TYPE, make_problem
from app.telemetry import Metrics, choose_request_id

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

_LEFT = frozenset({7, 8})
"""States CLOSE and CLOSE_WAIT of a TCP connection (Linux, include/net/tcp_states.h): the other end has closed it."""


class ProblemProtocol(HttpToolsProtocol):
    """One connection."""

    header_timeout_s: ClassVar[float] = 10.0
    metrics: ClassVar[Metrics]
    _timer: asyncio.TimerHandle | None = None
    _is_body_open = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, and wait for its first headers only so long."""
        super().connection_made(transport)
        if _has_left(transport):  # it waited longer for being accepted than its client for the answer
            self._drop()
        else:
            self._await_headers()

    def on_message_begin(self) -> None:
        """Wait for the headers of each further request only so long."""
        super().on_message_begin()
        self._is_body_open = True
        self._await_headers()

    def on_message_complete(self) -> None:
        """Note that nothing of the body is still to come."""
        self._is_body_open = False
        self._stop_waiting()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on reading an unfinished body for a while, so that the client can read its answer; then close."""
        super().on_response_complete()
        if self._is_body_open and self._timer is None:
            self._timer = self.loop.call_later(self.header_timeout_s, self.transport.close)

    def on_headers_complete(self) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what can't be parsed, and close the connection."""
        self._refuse("malformed_request", msg)

    def _start_asgi_task(self, cycle: "RequestResponseCycle", app: "ASGI3Application") -> None:
        """Begin no work for a request whose client left while it waited to be read."""
        if _has_left(self.transport):
            self._drop()
        else:
            super()._start_asgi_task(cycle, app)

    def _drop(self) -> None:
        self.metrics.count_gone()
        self.transport.abort()

    def _await_headers(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.header_timeout_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self._refuse("slow_client", f"The headers did not arrive within {self.header_timeout_s:g} seconds.")

    def _refuse(self, code: str, detail: str) -> None:
        problem = make_problem(code, detail, request_id=choose_request_id(None))
        body = problem.model_dump_json().encode()
        head = f"content-type: {PROBLEM_MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[problem.status] + head.encode() + body)
        self.transport.close()


def make_protocol(header_timeout_s: float, metrics: Metrics) -> type[ProblemProtocol]:
    """Make the protocol with a limit on how long headers may take, and with where it counts."""
    return type("ProblemProtocol", (ProblemProtocol,), {"header_timeout_s": header_timeout_s, "metrics": metrics})


def _has_left(transport: asyncio.Transport) -> bool:
    """Ask the kernel whether the client has closed its end, though its bytes are still being read."""
    connection = transport.get_extra_info("socket")
    if connection is None or not hasattr(socket, "TCP_INFO"):  # only Linux tells
        return False
    try:
        return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in _LEFT
    except OSError:
        return True
