"""Refusals of requests that are not read further, and the headers that are refused."""

import re
from dataclasses import dataclass

from httptools import parse_url
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from app.api.problems import PROBLEM_MEDIA_TYPE, make_problem
from app.errors import Overloaded
from app.telemetry import Metrics, choose_request_id, log_unread

Headers = list[tuple[bytes, bytes]]

_HOST = re.compile(rb"([\w.~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(:\d*)?", re.ASCII)
"""A host and a port (RFC 3986, 3.2.2 and 3.2.3)."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Answer to a request that is not read further; the connection closes after it."""

    code: str
    detail: str
    counts: bool = True
    status: int | None = None
    """None if it is that of the code."""

    def write(self, metrics: Metrics) -> bytes:
        """Return the whole answer, counted and logged."""
        request_id = choose_request_id(None)
        problem = make_problem(self.code, self.detail, request_id=request_id, status=self.status)
        if self.counts:
            metrics.count_unread(self.code, problem.status)
            log_unread(problem.request_id, problem.status)
        body = problem.model_dump_json().encode()
        retry = "retry-after: 1\r\n" if self.code == Overloaded.code else ""
        head = (
            f"content-type: {PROBLEM_MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n{retry}"
            f"x-request-id: {problem.request_id}\r\nconnection: close\r\n\r\n"
        )
        return STATUS_LINE[problem.status] + head.encode() + body


class Refused(Exception):
    """The request must be refused; the parser stops."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.refusal = Refusal(code, detail)


def check_headers(headers: Headers, version: str) -> None:
    """Raise `Refused` for headers that a server must refuse (RFC 9112, 3.2 and 6.1)."""
    hosts = [value for name, value in headers if name == b"host"]
    is_missing = not hosts and version == "1.1"
    if is_missing or len(hosts) > 1 or not all(map(_HOST.fullmatch, hosts)):
        raise Refused("malformed_request", "The request needs exactly one valid Host.")
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if codings not in ([], [b"chunked"]):
        raise Refused("not_implemented", "The service knows no transfer coding but chunked.")


def body_length(headers: Headers) -> int:
    """Return the announced length of a body, or 0 if there is none."""
    lengths = [value for name, value in headers if name == b"content-length"]
    return int(lengths[0]) if lengths and lengths[0].isdigit() else 0


def authority_of(target: bytes) -> bytes:
    """Return host and port of an absolute target as a Host header has them, else nothing.

    Raises:
        Refused: it names a user, which no honest client sends (RFC 9110, 4.2.4).
    """
    url = parse_url(target)
    if url.userinfo is not None:
        raise Refused("malformed_request", "The target names a user.")
    host: bytes = url.host or b""
    name = b"[%b]" % host if b":" in host else host
    return name if url.port is None else b"%b:%d" % (name, url.port)
