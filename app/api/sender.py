"""Who sends a request, where senders take turns: the name of its key, else its address."""

from ipaddress import IPv6Address, ip_network

from starlette.types import Scope

KEY_NAME = "cxr.key_name"
"""Key of the ASGI scope under which the name of a checked API key stands."""

_ONE_SITE = 64
"""Bits of an IPv6 address that name a site. Its machines choose the other bits as they like."""


def sender_of(scope: Scope) -> str:
    """Return who sends a request. Clients behind one proxy without keys are one sender."""
    name = scope.get(KEY_NAME)
    if name is not None:
        return f"key {name}"
    address: str = (scope.get("client") or ("",))[0]
    return _site_of(address) if ":" in address else address


def _site_of(address: str) -> str:
    """Return the network of an IPv6 address, or the IPv4 address that is written as one."""
    try:
        parsed = IPv6Address(address)
    except ValueError:  # no address of TCP
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network((int(parsed), _ONE_SITE), strict=False))
