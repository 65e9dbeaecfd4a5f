"""How the service speaks HTTP on a socket: uvicorn's protocol, with six manners added.

A client whose headers do not arrive in time is cut off, so is one whose headers do not end, and
one that goes on sending a body long after its answer; a request whose client has left already
begins no work; an offer to speak another protocol is passed over; and bytes that are no HTTP are
answered by a problem document, as everything else is.
"""

import asyncio
import socket
from typing import TYPE_CHECKING, ClassVar

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.api.problems import PROBLEM_MEDIA_TYPE, make_problem
from app.telemetry import CLIENT_CLOSED_REQUEST, Metrics, choose_request_id, log_unread

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

_LEFT = frozenset({7, 8})
"""States CLOSE and CLOSE_WAIT of a TCP connection (Linux, include/net/tcp_states.h): the other end
has closed it."""

_MAX_HEAD_BYTES = 64 * 1024
"""What a request may have besides its body: headers, trailers, and what frames its chunks beyond a
byte for each of theirs."""


class ProblemProtocol(HttpToolsProtocol):
    """One connection."""

    header_timeout_s: ClassVar[float] = 10.0
    metrics: ClassVar[Metrics]
    _timer: asyncio.TimerHandle | None = None
    _is_body_open = False
    _num_beside_body = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, and wait for its first headers only so long."""
        super().connection_made(transport)
        if _has_left(
            transport
        ):  # it waited longer for being accepted than its client for the answer
            self._drop()
        else:
            self._await_headers()

    def data_received(self, data: bytes) -> None:
        """Read on as uvicorn does, but within a cap on headers, and passing over an upgrade, which
        would cut off the body.
        """
        self._unset_keepalive_if_required()
        self._num_beside_body += len(data)
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            (num_read,) = upgrade.args
            self._read_without_upgrade(data[num_read:])
        except HttpParserError:
            self.send_400_response("This is no HTTP request.")
        else:
            if self._num_beside_body > _MAX_HEAD_BYTES and not self.transport.is_closing():
                self._refuse(
                    "malformed_request", f"The headers have more than {_MAX_HEAD_BYTES} bytes."
                )

    def _read_without_upgrade(self, rest: bytes) -> None:
        """Read a request again without its offer of another protocol, and with what followed its
        headers.

        A server may pass over an `Upgrade` (RFC 9110 section 7.8).  The parser takes what comes
        after one for the other protocol, and what is sent as a body would be read as further
        requests.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            self.send_400_response("This is no proxy.")
            return
        lines = [b"%s: %s\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        head = b"%s %s HTTP/%s\r\n%s\r\n" % (method, self.url, version, b"".join(lines))
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._num_beside_body = 0
        self.data_received(head + rest)

    def on_message_begin(self) -> None:
        """Wait for the headers of each further request only so long."""
        super().on_message_begin()
        self._is_body_open = True
        self._await_headers()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body, which pays for itself and for as much that frames it."""
        self._num_beside_body -= 2 * len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that nothing of the body is still to come."""
        if self.parser.should_upgrade():
            return
        self._is_body_open = False
        self._num_beside_body = 0
        self._stop_waiting()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on reading an unfinished body for a while, so that the client can read its answer;
        then close.
        """
        super().on_response_complete()
        is_the_last = (
            self.cycle.response_complete
        )  # else the open body is that of the request behind it
        if self._is_body_open and is_the_last and self._timer is None:
            self._timer = self.loop.call_later(self.header_timeout_s, self.transport.close)

    def on_headers_complete(self) -> None:
        """Stop waiting, and begin; a request with an upgrade is read again without it first."""
        if not self.parser.should_upgrade():
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
        self.metrics.count_unread("client_gone", CLIENT_CLOSED_REQUEST)
        self.transport.abort()

    def _await_headers(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.header_timeout_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        if self.transport.is_closing():
            return
        has_begun = (
            self._num_beside_body > 0
        )  # browsers and load balancers open connections in advance, and may never use them
        self._refuse(
            "slow_client",
            f"The headers did not arrive within {self.header_timeout_s:g} seconds.",
            counts=has_begun,
        )

    def _refuse(self, code: str, detail: str, *, counts: bool = True) -> None:
        if (
            self.cycle is not None
            and self.cycle.scope is self.scope
            and self.cycle.response_started
        ):
            self.transport.close()  # the request has its answer, and its client still sends
            return
        problem = make_problem(code, detail, request_id=choose_request_id(None))
        body = problem.model_dump_json().encode()
        head = (
            f"content-type: {PROBLEM_MEDIA_TYPE}\r\ncontent-length: "
            f"{len(body)}\r\nx-request-id: {problem.request_id}\r\n"
        )
        self.transport.write(
            STATUS_LINE[problem.status] + head.encode() + b"connection: close\r\n\r\n" + body
        )
        self.transport.close()
        if counts:
            self.metrics.count_unread(code, problem.status)
            log_unread(problem.request_id, problem.status)


def make_protocol(header_timeout_s: float, metrics: Metrics) -> type[ProblemProtocol]:
    """Make the protocol with a limit on how long headers may take, and with where it counts."""
    return type(
        "ProblemProtocol",
        (ProblemProtocol,),
        {"header_timeout_s": header_timeout_s, "metrics": metrics},
    )


def _has_left(transport: asyncio.Transport) -> bool:
    """Ask the kernel whether the client has closed its end, though its bytes are still being
    read.
    """
    connection = transport.get_extra_info("socket")
    if connection is None or not hasattr(socket, "TCP_INFO"):  # only Linux tells
        return False
    try:
        return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in _LEFT
    except OSError:
        return True
