"""Whether a request without a key comes from this machine's own users, and not from a foreign page.

A web page that a user visits can make the browser send requests to the loopback. By DNS rebinding
it can even read the answers. Both are refused by headers that the browser itself sends: Host,
Origin and Sec-Fetch-Site (https://www.w3.org/TR/fetch-metadata/).
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.problems import problem_of, problem_response
from app.errors import Forbidden, MisdirectedRequest, ServiceError
from app.settings import Settings
from app.settings.exposure import host_name, is_loopback
from app.telemetry import Metrics

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_ANY = "*"
_ADDRESS = re.compile(r"(?:[^\s:@\[\]]+|\[[0-9a-f:.]+\])(?::\d{1,5})?")
"""A host, and perhaps a port (RFC 6454, 6.2)."""


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """The names to which a service without keys answers."""

    names: frozenset[str]
    allows_addresses: bool
    """Whether any address is allowed, because the service listens on all of its own."""

    @classmethod
    def of(cls, settings: Settings) -> "AllowedHosts":
        """Return the names of the settings: CXR_HOST and CXR_ALLOWED_HOSTS."""
        names = {settings.host.lower(), *settings.allowed_host_names()}
        return cls(frozenset(names), _is_unspecified(settings.host))

    def allows(self, host: str) -> bool:
        """Return whether a Host header names this service."""
        name = host_name(host)
        if _ANY in self.names or name in self.names or is_loopback(name):
            return True
        return self.allows_addresses and _is_address(name)

    def lists(self, origin: str) -> bool:
        """Return whether the settings name the host of an Origin header."""
        return host_name(_address_of(origin)) in self.names - {_ANY}


class OriginMiddleware:
    """Refuse requests of foreign pages while no key is asked for.

    Pure ASGI: starlette's BaseHTTPMiddleware would hide that a client left.
    """

    def __init__(self, app: ASGIApp, hosts: AllowedHosts, metrics: Metrics) -> None:
        self._app = app
        self._hosts = hosts
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 421 or 403."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope["method"], Headers(scope=scope))
        except ServiceError as error:
            self._metrics.rejections.labels(error.code).inc()
            answer = problem_response(problem_of(error), path=scope["path"])
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, method: str, headers: Headers) -> None:
        host = headers.get("host")  # only HTTP/1.0 may leave it out, which no browser speaks
        if host is not None and not self._hosts.allows(host):
            raise MisdirectedRequest(
                "The service does not answer to this Host. CXR_ALLOWED_HOSTS names further ones."
            )
        if method in _SAFE_METHODS:
            return
        origins = headers.getlist("origin")
        if origins and all(map(self._hosts.lists, origins)):
            return
        is_own = all(_is_same_host(origin, host or "") for origin in origins)
        site = headers.get("sec-fetch-site", "none")
        if not is_own or site not in ("none", "same-origin"):
            raise Forbidden("A page of another origin may not send this. Use an API key.")


def _is_same_host(origin: str, host: str) -> bool:
    """Return whether an Origin header names the same host as the Host header.

    A proxy may leave the port out of the Host.
    """
    address = _address_of(origin)
    host = host.lower()
    return bool(address) and (address == host or host_name(address) == host)


def _address_of(origin: str) -> str:
    """Return host and port of an Origin header, "" if it has more than these or other ones."""
    try:
        address = urlsplit(origin).netloc.lower()
    except ValueError:  # brackets without an address of IPv6
        return ""
    return address if _ADDRESS.fullmatch(address) else ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_unspecified(host: str) -> bool:
    return _is_address(host) and ip_address(host).is_unspecified
