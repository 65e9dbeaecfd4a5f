"""Let requests for pages and facts take turns if they come without a pause.

Their answers are cheap, but a client that asks again at once can keep the event loop busy with
them, and uploads would wait for it. So only so many a second are answered; further ones wait.
Addresses take turns, so that one that asks much makes few others wait. Who has left loses no turn
for others, and no more requests wait than can be answered soon: they keep their connections.
Probes are answered at once, and so is whatever is posted: uploads have their own admission.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.problems import headers_for, problem_of, problem_response
from app.errors import Overloaded
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


class Pace:
    """When each request of many may be answered: the generic cell rate algorithm (ITU-T I.371)."""

    def __init__(self, per_second: float, burst: int) -> None:
        """Take the rate, and how many requests may come at once."""
        self._spacing_s = 1 / per_second
        self._burst_s = burst / per_second
        self._next = float("-inf")

    def wait_s(self, now: float) -> float:
        """Return how long the next request has to wait, on any clock in seconds."""
        return max(0.0, self._after(now) - now)

    def take(self, now: float) -> None:
        """Count one request that is answered now."""
        self._next = self._after(now)

    def _after(self, now: float) -> float:
        return max(self._next, now - self._burst_s) + self._spacing_s


@dataclass(frozen=True, slots=True)
class _Waiter:
    """A request that waits; the future tells whether its client was here when its turn came."""

    turn: asyncio.Future[bool]
    is_here: Callable[[], bool]


class Turns:
    """The requests that wait for their turn; belongs to one event loop."""

    def __init__(self, pace: Pace, max_waiting: int) -> None:
        """Take the pace, and how many requests may wait."""
        self._pace = pace
        self._max_waiting = max_waiting
        self._waiting: dict[str, deque[_Waiter]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._looked = float("-inf")

    async def take(self, address: str, is_here: Callable[[], bool]) -> bool:
        """Wait for a turn among all addresses; return whether the client is still here.

        Raises:
            Overloaded: too many wait, and no other address has more of them.
        """
        loop = asyncio.get_running_loop()
        if not self._waiting and not self._pace.wait_s(loop.time()):
            self._pace.take(loop.time())
            return True
        self._make_room(address)
        waiter = _Waiter(loop.create_future(), is_here)
        self._waiting.setdefault(address, deque()).append(waiter)
        self._answer_some()
        return await waiter.turn

    def _answer_some(self) -> None:
        """Give all turns that are due, and come back for the next one."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
        while self._waiting and not self._pace.wait_s(loop.time()):
            waiter = self._pop_next()
            if waiter.turn.done():  # its request was cancelled
                continue
            is_here = waiter.is_here()
            if is_here:
                self._pace.take(loop.time())
            waiter.turn.set_result(is_here)
        wait_s = self._pace.wait_s(loop.time())
        self._timer = loop.call_later(wait_s, self._answer_some) if self._waiting else None

    def _pop_next(self) -> _Waiter:
        """Return the oldest request of the address whose turn it is; the address goes behind."""
        address = next(iter(self._waiting))
        queue = self._waiting.pop(address)
        waiter = queue.popleft()
        if queue:
            self._waiting[address] = queue
        return waiter

    def _make_room(self, address: str) -> None:
        """Refuse the newest request of the address that has most of them, if too many wait."""
        self._forget_who_left()
        if self._num_waiting < self._max_waiting:
            return
        crowd = max(self._waiting.values(), key=len)
        refusal = Overloaded("Too many requests for pages and facts wait.")
        if len(crowd) <= len(self._waiting.get(address, ())) + 1:
            raise refusal
        newest = crowd.pop()
        if not newest.turn.done():
            newest.turn.set_exception(refusal)

    @property
    def _num_waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    def _forget_who_left(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._num_waiting < self._max_waiting or now - self._looked < _LOOK_S:
            return
        self._looked = now
        for address, queue in tuple(self._waiting.items()):
            here: deque[_Waiter] = deque()
            for waiter in queue:
                if waiter.is_here():
                    here.append(waiter)
                elif not waiter.turn.done():
                    waiter.turn.set_result(False)
            self._waiting[address] = here
            if not here:
                del self._waiting[address]


class PaceMiddleware:
    """Let requests that post nothing and probe nothing wait for their turn."""

    def __init__(self, app: ASGIApp, metrics: Metrics, *, overload_status: int) -> None:
        self._app = app
        self._metrics = metrics
        self._overload_status = overload_status
        self._turns = Turns(Pace(_PER_SECOND, _BURST), _MAX_WAITING)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, at once or in its turn."""
        if scope["type"] != "http" or scope["method"] == "POST" or scope["path"] in _PROBES:
            await self._app(scope, receive, send)
            return
        address = (scope.get("client") or ("",))[0]
        is_here = scope.get("extensions", {}).get(IS_HERE, lambda: True)
        try:
            stayed = await self._turns.take(address, is_here)
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
