"""TLS for DICOM and HTTP: both sides show certificates (PS3.15 B.12, BCP 195)."""

import socket
import ssl
from typing import Any

from gateway.settings import Tls


class _ServerContext(ssl.SSLContext):
    """Leaves the handshake to the connection's own thread.

    pynetdicom wraps a connection in the thread that accepts all of them; a peer that stalls in
    its handshake there would keep everybody else out.
    """

    def wrap_socket(self, sock: socket.socket, *args: Any, **options: Any) -> ssl.SSLSocket:
        """Wrap a connection without waiting for its peer."""
        options["do_handshake_on_connect"] = False
        return super().wrap_socket(sock, *args, **options)


def server_context(tls: Tls) -> ssl.SSLContext:
    """Return a context that asks every client for a certificate of the peers' authority."""
    context = _ServerContext(ssl.PROTOCOL_TLS_SERVER)
    _load(context, tls)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(tls: Tls) -> ssl.SSLContext:
    """Return a context that shows our certificate and checks the server's, its name included."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _load(context, tls)
    return context


def _load(context: ssl.SSLContext, tls: Tls) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tls.certificate, tls.key)
    context.load_verify_locations(tls.peers_ca)


def server_options(tls: Tls) -> dict[str, Any]:
    """Return what uvicorn asks of a server that wants certificates of its clients."""
    return {
        "ssl_certfile": str(tls.certificate),
        "ssl_keyfile": str(tls.key),
        "ssl_ca_certs": str(tls.peers_ca),
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
    }
