"""The id, the stage times and the distributed trace of the request that is being answered."""

import random
import re
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.telemetry.spans import Span

_TRACEPARENT = re.compile(
    r"(?=00-.{52}\Z|(?!00|ff))"  # version 00 has this length; a later one may say more at the end
    r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?"
)
"""W3C Trace Context, section 3.2."""
_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


@dataclass(slots=True)
class RequestTrace:
    """Id, start time and stages of the current request."""

    request_id: str
    started: float = field(default_factory=time.perf_counter)
    stages_ms: dict[str, float] = field(default_factory=dict)
    trace_id: str | None = None
    """Of the distributed trace that the request belongs to, if its sender named one."""
    spans: "list[Span] | None" = None
    """The steps of the answer; None unless they are exported."""


current: ContextVar[RequestTrace | None] = ContextVar("current_request", default=None)


def current_trace() -> RequestTrace | None:
    """Return what is known of the current request; None outside of one."""
    return current.get()


def current_request_id() -> str:
    """Return the id of the current request, or an empty text outside of one."""
    trace = current.get()
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
