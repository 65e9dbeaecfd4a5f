"""Check API keys, and count the calls of each.

    python -m app.access NAME      makes a key and the line that configures it

A key is 256 random bits, so its plain SHA-256 can't be inverted and needs no salt or slow hash.
Only that hash is configured. Each presented key is hashed and compared with every known hash, so a
wrong key takes as long as a right one.

If no key is configured, there is no check. Else every request needs one, except for what a browser
or an orchestrator reads before it can show one: the page, the API's document, health. Metrics are
open too: they hold counts under closed labels and nothing of a patient. A proxy should not publish
them.
"""

import argparse
import hashlib
import hmac
import math
import re
import secrets
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.problems import headers_for, problem_of, problem_response
from app.api.sender import KEY_NAME
from app.errors import RateLimited, ServiceError, Unauthorized
from app.settings import Settings
from app.settings.exposure import KEY_LINE
from app.telemetry import Metrics

_BURST_SECONDS = 10.0
"""Seconds' worth of calls that may come at once."""

_OPEN = re.compile(
    r"/(livez|readyz|v2|v2/health/(live|ready)|metrics|openapi\.json|docs|docs/.*|[\w-]+\.(html|css|js|svg|png|ico|woff2|dcm))?"
)


@dataclass(slots=True)
class Caller:
    """One named key: its hash and a token bucket of calls."""

    name: str
    digest: bytes
    allowance: float = math.inf
    seen: float = field(default_factory=time.monotonic)

    def spend(self, per_minute: int) -> None:
        """Take one call from the allowance; raise `RateLimited` if none is left."""
        if not per_minute:
            return
        rate, now = per_minute / 60, time.monotonic()
        burst = max(1.0, rate * _BURST_SECONDS)
        self.allowance, self.seen = min(burst, self.allowance + (now - self.seen) * rate), now
        if self.allowance < 1:
            raise RateLimited(
                "This key has used up its calls.",
                retry_after_s=math.ceil((1 - self.allowance) / rate),
            )
        self.allowance -= 1


class ApiKeys:
    """The configured keys; belongs to one event loop."""

    def __init__(self, callers: Iterable[Caller], *, per_minute: int) -> None:
        self._callers = tuple(callers)
        self._per_minute = per_minute

    @classmethod
    def of(cls, settings: Settings) -> "ApiKeys":
        """Return the keys of the settings."""
        return cls(map(parse_key, settings.key_lines()), per_minute=settings.max_calls_per_minute)

    @property
    def is_open(self) -> bool:
        """Return whether no key is asked for."""
        return not self._callers

    def admit(self, authorization: str) -> str:
        """Accept one call and return the key's name; raise `Unauthorized` or `RateLimited`."""
        scheme, _, key = authorization.partition(" ")
        digest = hashlib.sha256(key.strip().encode()).digest()
        matches = [caller for caller in self._callers if hmac.compare_digest(caller.digest, digest)]
        if scheme.lower() != "bearer" or not matches:
            raise Unauthorized("Send an API key as Authorization: Bearer KEY.")
        matches[0].spend(self._per_minute)
        return matches[0].name


def parse_key(line: str) -> Caller:
    """Read `NAME:SHA256`; raise `ValueError` without quoting the line."""
    match = KEY_LINE.fullmatch(line.strip())
    if match is None:
        raise ValueError(
            "an API key's line is NAME:SHA256, as `python -m app.access NAME` writes it"
        )
    return Caller(match[1], bytes.fromhex(match[2]))


class AccessMiddleware:
    """Ask for a key before anything else of a request is read.

    Pure ASGI: starlette's BaseHTTPMiddleware would hide that a client left.
    """

    def __init__(self, app: ASGIApp, api_keys: ApiKeys, metrics: Metrics) -> None:
        self._app = app
        self._api_keys = api_keys
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 401 or 429."""
        if scope["type"] != "http" or self._api_keys.is_open or _is_public(scope):
            await self._app(scope, receive, send)
            return
        try:
            scope[KEY_NAME] = self._api_keys.admit(Headers(scope=scope).get("authorization", ""))
        except ServiceError as error:
            self._metrics.rejections.labels(error.code).inc()
            answer = problem_response(problem_of(error), headers_for(error), path=scope["path"])
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _is_public(scope: Scope) -> bool:
    return scope["method"] in ("GET", "HEAD") and _OPEN.fullmatch(scope["path"]) is not None


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a new key and its line. Return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m app.access", description="Make an API key for the service."
    )
    parser.add_argument("name", help="who will use it; letters, digits, dot, dash, underscore")
    name = parser.parse_args(arguments).name
    key = secrets.token_urlsafe(32)
    line = f"{name}:{hashlib.sha256(key.encode()).hexdigest()}"
    parse_key(line)
    sys.stdout.write(
        f"key, for the client, shown once:      {key}\nline, for CXR_API_KEYS or its file:  "
        f"{line}\n"
    )
    return 0
