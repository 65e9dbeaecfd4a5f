"""A server that ends without losing a request.

On SIGTERM the service is not ready and answers new requests 503 for `CXR_DRAIN_SECONDS`, so that a
load balancer notices. Then the port closes. For half a second answers on open connections say that
they are the last. Accepted requests are finished, and the process ends. Ctrl-C skips the draining.
"""

import asyncio
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from signal import SIG_IGN
from types import FrameType

import uvicorn

from app.server.accept_connections import Acceptor

_FAREWELL_S = 0.5
"""Seconds after the port has closed in which open connections may still send requests.

A request that crosses the closing of its connection is lost, and its sender can't know whether it
was read. Only a connection that was silent all this time can lose one."""


class DrainingServer(uvicorn.Server):
    """A server that goes on answering for a while after SIGTERM, when `on_drain` was called.

    The coroutines in `alongside` start before the models load and are cancelled at the end.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        drain_seconds: float,
        on_drain: Callable[[], None],
        shares_port: bool = False,
    ) -> None:
        super().__init__(config)
        self._drain_seconds = drain_seconds
        self._on_drain = on_drain
        self._shares_port = shares_port
        self.alongside: list[Coroutine[None, None, None]] = []
        self._closes_at = math.inf
        self._acceptors: tuple[Acceptor, ...] = ()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve, and run the coroutines `alongside`."""
        tasks = [asyncio.create_task(coroutine) for coroutine in self.alongside]
        try:
            with self._on_hangup():
                await super().serve(sockets)
        finally:
            for task in tasks:
                task.cancel()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Load the models, then listen on the sockets, alone or with other processes."""
        await super().startup([])
        self._acceptors = tuple(
            Acceptor(
                listener,
                self._make_protocol,
                self._count_open,
                backlog=self.config.backlog,
                is_shared=self._shares_port,
            )
            for listener in sockets or ()
        )

    @contextmanager
    def _on_hangup(self) -> Iterator[None]:
        """Treat SIGHUP as SIGTERM, unless it was ignored before, as under nohup."""
        is_ignored = not hasattr(signal, "SIGHUP") or signal.getsignal(signal.SIGHUP) == SIG_IGN
        if is_ignored or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGHUP, self.handle_exit)
        try:
            yield
        finally:
            signal.signal(signal.SIGHUP, before)

    def handle_exit(self, sig: int, _frame: FrameType | None) -> None:
        """Drain first on SIGTERM and SIGHUP; a second signal, or Ctrl-C, closes at once."""
        if not self.started:
            os._exit(0)  # no request was accepted, and the opening of a bundle can't be stopped
        self._on_drain()
        if sig != signal.SIGINT and self._closes_at == math.inf:
            self._closes_at = time.monotonic() + self._drain_seconds
        else:
            self.force_exit = self.should_exit and sig == signal.SIGINT
            self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Close the port when draining is over."""
        self.should_exit = self.should_exit or time.monotonic() >= self._closes_at
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port, give open connections a last answer, and end when all are answered."""
        for server in self.servers:
            server.close()
        for acceptor in self._acceptors:
            acceptor.close()
        self.server_state.default_headers.append((b"connection", b"close"))
        await asyncio.sleep(0.0 if self.force_exit else _FAREWELL_S)
        await super().shutdown(sockets)

    def _make_protocol(self) -> asyncio.Protocol:
        """Return a protocol for one connection, as uvicorn does for its own listeners."""
        make = self.config.http_protocol_class
        return make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )  # type: ignore[call-arg]

    def _count_open(self) -> int:
        return len(self.server_state.connections)
