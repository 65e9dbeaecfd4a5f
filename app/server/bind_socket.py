"""The socket that the service listens on, bound before anything slow is done."""

import socket


def bind(host: str, port: int) -> socket.socket:
    """Return a bound socket. Connections are refused until a server listens on it.

    Raises:
        OSError: the port is taken or not allowed.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # A name such as localhost may have both; clients try IPv4 last or first, but always.
    family, kind, protocol, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener
