"""Let requests for pages and facts take turns if they come without a pause.

Their answers are cheap, but a client that asks again at once can keep the event loop busy with
them, and uploads would wait for it. So only so many a second are answered; further ones wait.
Senders take turns, so that one that asks much makes few others wait. Who has left loses no turn
for others, and no more requests wait than can be answered soon: they keep their connections.
Probes are answered at once, and so is whatever is posted: uploads have their own admission.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.cell_rate import CellRate
from app.api.problems import headers_for, problem_of, problem_response
from app.api.sender import sender_of
from app.errors import Overloaded
from app.inference.fair_queue import FairQueue
from app.telemetry import CLIENT_CLOSED_REQUEST, Metrics

IS_HERE = "cxr.is_here"
"""Name of the ASGI extension that tells whether a request's client is still connected."""

_PER_SECOND = 100
_BURST = 100
"""Requests that are answered at once after a quiet second; a page with all its files has 30."""

_MAX_WAITING = 200
"""Requests that wait: as many as are answered in two seconds."""

_LOOK_S = 0.02
"""Shortest time between two searches for clients that have left."""

_PROBES = frozenset({"/livez", "/readyz", "/v2/health/live", "/v2/health/ready"})


@dataclass(frozen=True, slots=True)
class _Waiter:
    """A request that waits; the future tells whether its client was here when its turn came."""

    turn: asyncio.Future[bool]
    is_here: Callable[[], bool]


class Turns:
    """The requests that wait for their turn; belongs to one event loop."""

    def __init__(self, rate: CellRate, max_waiting: int) -> None:
        """Take the rate, and how many requests may wait."""
        self._rate = rate
        self._waiting = FairQueue[_Waiter](max_waiting)
        self._timer: asyncio.TimerHandle | None = None
        self._looked = float("-inf")

    async def take(self, sender: str, is_here: Callable[[], bool]) -> bool:
        """Wait for a turn among all senders; return whether the client is still here.

        Raises:
            Overloaded: too many wait, and no other sender has more of them.
        """
        loop = asyncio.get_running_loop()
        if not self._waiting and not self._rate.wait_s(loop.time()):
            self._rate.take(loop.time())
            return True
        self._forget_who_left()
        waiter = _Waiter(loop.create_future(), is_here)
        refused = self._waiting.put(sender, waiter)
        if refused is not None and not refused.turn.done():
            refused.turn.set_exception(Overloaded("Too many requests for pages and facts wait."))
        self._answer_some()
        return await waiter.turn

    def _answer_some(self) -> None:
        """Give all turns that are due, and come back for the next one."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
        while self._waiting and not self._rate.wait_s(loop.time()):
            sender, waiter = self._waiting.pop()
            if waiter.turn.done():  # its request was cancelled
                continue
            is_here = waiter.is_here()
            if is_here:
                self._rate.take(loop.time())
                self._waiting.charge(sender, 1)
            waiter.turn.set_result(is_here)
        wait_s = self._rate.wait_s(loop.time())
        self._timer = loop.call_later(wait_s, self._answer_some) if self._waiting else None

    def _forget_who_left(self) -> None:
        now = asyncio.get_running_loop().time()
        if not self._waiting.is_full or now - self._looked < _LOOK_S:
            return
        self._looked = now
        for waiter in self._waiting.take_out(lambda waiter: not waiter.is_here()):
            if not waiter.turn.done():
                waiter.turn.set_result(False)


class ThrottleMiddleware:
    """Let requests that post nothing and probe nothing wait for their turn."""

    def __init__(self, app: ASGIApp, metrics: Metrics, *, overload_status: int) -> None:
        self._app = app
        self._metrics = metrics
        self._overload_status = overload_status
        self._turns = Turns(CellRate(_PER_SECOND, _BURST), _MAX_WAITING)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, at once or in its turn."""
        if scope["type"] != "http" or scope["method"] == "POST" or scope["path"] in _PROBES:
            await self._app(scope, receive, send)
            return
        is_here = scope.get("extensions", {}).get(IS_HERE, lambda: True)
        try:
            stayed = await self._turns.take(sender_of(scope), is_here)
        except Overloaded as error:
            self._metrics.rejections.labels(error.code).inc()
            problem = problem_of(error, overload_status=self._overload_status)
            answer = problem_response(problem, headers_for(error), path=scope["path"])
            await answer(scope, receive, send)
            return
        if stayed:
            await self._app(scope, receive, send)
        else:
            await Response(status_code=CLIENT_CLOSED_REQUEST)(scope, receive, send)
