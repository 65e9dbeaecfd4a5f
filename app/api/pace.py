"""Let requests for pages and facts take turns if they come without a pause.

Their answers are cheap, but a client that asks again at once can keep the event loop busy with
them, and uploads would wait for it. So only so many a second are answered; further ones wait.
Probes are answered at once, and so is whatever is posted: uploads have their own admission.
"""

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

_PER_SECOND = 100
_BURST = 100
"""Requests that are answered at once after a quiet second; a page with all its files has 30."""

_PROBES = frozenset({"/livez", "/readyz", "/v2/health/live", "/v2/health/ready"})


class Pace:
    """When each request of many may be answered: the generic cell rate algorithm (ITU-T I.371)."""

    def __init__(self, per_second: float, burst: int) -> None:
        """Take the rate, and how many requests may come at once."""
        self._spacing_s = 1 / per_second
        self._burst_s = burst / per_second
        self._next = float("-inf")

    def wait_s(self, now: float) -> float:
        """Return how long a request that comes now has to wait, on any clock in seconds."""
        self._next = max(self._next, now - self._burst_s) + self._spacing_s
        return max(0.0, self._next - now)


class PaceMiddleware:
    """Let requests that post nothing and probe nothing wait for their turn."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._pace = Pace(_PER_SECOND, _BURST)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, at once or in its turn."""
        if scope["type"] == "http" and scope["method"] != "POST" and scope["path"] not in _PROBES:
            wait_s = self._pace.wait_s(asyncio.get_running_loop().time())
            if wait_s:
                await asyncio.sleep(wait_s)
        await self._app(scope, receive, send)
