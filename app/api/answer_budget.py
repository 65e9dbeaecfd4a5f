"""Send large answers in pieces, and limit the bytes of those that wait to be read.

A client may read its answer slowly or not at all. So a large answer is handed to the connection
piece by piece, and counted until the last one has left.
"""

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import headers_for, problem_of, problem_response
from app.errors import Overloaded
from app.telemetry import Metrics

_PIECE_BYTES = 64 * 1024
"""Answers of at most this size are sent at once and not counted."""

_GRACE_S = 1.0
"""Seconds that every answer may wait to be read, however many others wait."""

ABORT = "cxr.abort"
"""Name of the ASGI extension that closes a request's connection at once."""


@dataclass(eq=False, slots=True)
class _Answer:
    """A large answer that waits to be read."""

    num_bytes: int
    started: float
    abandon: Callable[[], None]
    is_held: bool = True


class AnswerBudget:
    """The large answers of one service process; belongs to one event loop."""

    def __init__(self, max_bytes: int, metrics: Metrics) -> None:
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._answers: dict[_Answer, None] = {}
        self._num_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Bytes of all answers that wait."""
        return self._num_bytes

    @contextmanager
    def hold(self, num_bytes: int, abandon: Callable[[], None]) -> Iterator[None]:
        """Count an answer while the block runs.

        Answers that have waited longest are abandoned if there is no room.

        Args:
            num_bytes: size of the answer.
            abandon: closes the connection of the answer.

        Raises:
            Overloaded: there is no room, and no other answer has waited for long.
        """
        now = time.monotonic()
        while self._num_bytes + num_bytes > self._max_bytes:
            longest = next(iter(self._answers), None)
            if longest is None or now - longest.started < _GRACE_S:
                raise Overloaded("The answers that wait to be read take all their memory.")
            self._release(longest)
            self._metrics.dropped_connections.labels("unread_answer").inc()
            longest.abandon()
        answer = _Answer(num_bytes, now, abandon)
        self._answers[answer] = None
        self._num_bytes += num_bytes
        try:
            yield
        finally:
            self._release(answer)

    def _release(self, answer: _Answer) -> None:
        if answer.is_held:
            answer.is_held = False
            del self._answers[answer]
            self._num_bytes -= answer.num_bytes


class AnswerMiddleware:
    """Send each large answer in pieces, counted in a budget.

    Pure ASGI: starlette's BaseHTTPMiddleware would hide that a client left.
    """

    def __init__(
        self, app: ASGIApp, budget: AnswerBudget, metrics: Metrics, *, overload_status: int
    ) -> None:
        self._app = app
        self._budget = budget
        self._metrics = metrics
        self._overload_status = overload_status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; answer 503 if its large answer has no room."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start: Message | None = None

        async def send_in_pieces(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            head, start = start, None
            if len(message.get("body", b"")) <= _PIECE_BYTES or scope["method"] == "HEAD":
                if head is not None:
                    await send(head)
                await send(message)
                return
            try:
                with self._budget.hold(len(message["body"]), _abort(scope)):
                    await _send_pieces(send, head, message)
            except Overloaded as error:
                self._metrics.rejections.labels(error.code).inc()
                problem = problem_of(error, overload_status=self._overload_status)
                answer = problem_response(problem, headers_for(error), path=scope["path"])
                await answer(scope, receive, send)

        await self._app(scope, receive, send_in_pieces)


async def _send_pieces(
    send: Callable[[Message], Awaitable[None]], head: Message | None, message: Message
) -> None:
    """Send a body; the server waits before each piece until the client has read enough."""
    if head is not None:
        await send(head)
    body = memoryview(message["body"])
    for start in range(0, len(body), _PIECE_BYTES):
        piece = bytes(body[start : start + _PIECE_BYTES])
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({**message, "body": b""})


def _abort(scope: Scope) -> Callable[[], None]:
    """Return what closes a request's connection; nothing does if there is no socket."""
    abort: Callable[[], None] = scope.get("extensions", {}).get(ABORT, lambda: None)
    return abort
