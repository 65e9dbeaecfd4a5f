"""Who can reach the service: the address that it listens on, and the API keys that it asks for."""

import ipaddress
import re

KEY_LINE = re.compile(r"([\w.-]{1,64}):([0-9a-fA-F]{64})")
"""An API key's name and the SHA-256 of the key."""


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address to listen on."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
