"""Serve in one process, and end without losing a request.

On SIGTERM the service is not ready and answers new requests 503 for `CXR_DRAIN_SECONDS`, so that a
load balancer notices. Then the port closes. For half a second answers on open connections say that
they are the last. Accepted requests are finished, and the process ends. Ctrl-C skips the draining.

The application is imported late: Prometheus chooses its mode at import, and a worker sets its
number before that.
"""

import asyncio
import math
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from types import FrameType

import uvicorn

from app.server.shared_port import SharedPort
from app.server.worker_slot import WorkerSlot
from app.settings import Settings

_FAREWELL_S = 0.5
"""Seconds after the port has closed in which open connections may still send requests.

A request that crosses the closing of its connection is lost, and its sender can't know whether it
was read. Only a connection that was silent all this time can lose one."""


def work(settings: Settings, worker_slot: WorkerSlot) -> None:
    """Serve as one of several worker processes."""
    worker_slot.take()
    sys.exit(serve(settings, worker_slot))


def serve(settings: Settings, worker_slot: WorkerSlot | None = None) -> int:
    """Serve until SIGTERM or SIGINT, alone or as a worker. Return the exit status."""
    from app.main import create_app  # noqa: PLC0415
    from app.server.http_protocol import make_protocol  # noqa: PLC0415
    from app.telemetry import configure_logging  # noqa: PLC0415

    configure_logging(settings.log_level)
    app = create_app(settings)
    service = app.state.service
    service.metrics.replaced_workers.inc(worker_slot is not None and worker_slot.replaces)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="auto",  # uvloop where it is installed
        http=make_protocol(settings.header_timeout_seconds, service.metrics),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=math.ceil(settings.default_timeout_seconds),
    )
    server = DrainingServer(
        config,
        drain_seconds=settings.drain_seconds,
        on_drain=service.classifier.drain,
        alongside=worker_slot.send_heartbeats(lambda: not service.classifier.faults())
        if worker_slot
        else None,
    )
    server.run(sockets=[worker_slot.listener] if worker_slot else None)
    return 0 if server.started else 1


class DrainingServer(uvicorn.Server):
    """A server that goes on answering for a while after SIGTERM, when `on_drain` was called.

    The coroutine `alongside` starts before the models load and is cancelled at the end.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        drain_seconds: float,
        on_drain: Callable[[], None],
        alongside: Coroutine[None, None, None] | None = None,
    ) -> None:
        super().__init__(config)
        self._drain_seconds = drain_seconds
        self._on_drain = on_drain
        self._alongside = alongside
        self._closes_at = math.inf
        self._ports: tuple[SharedPort, ...] = ()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve, and run the coroutine `alongside`."""
        task = asyncio.create_task(self._alongside) if self._alongside else None
        try:
            await super().serve(sockets)
        finally:
            if task:
                task.cancel()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Load the models, then listen on an own port or on the sockets that are given."""
        await super().startup(None if sockets is None else [])
        self._ports = tuple(
            SharedPort(listener, self._make_protocol, self._count_open, backlog=self.config.backlog)
            for listener in sockets or ()
        )

    def handle_exit(self, sig: int, _frame: FrameType | None) -> None:
        """Drain first on SIGTERM; a second signal, or Ctrl-C, closes at once."""
        self._on_drain()
        if sig == signal.SIGTERM and self._closes_at == math.inf:
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
        for port in self._ports:
            port.close()
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
