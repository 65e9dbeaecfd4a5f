"""One service process: its application, its server, its end."""

import math
import sys

import uvicorn

from app.main import create_app
from app.models.freed_memory import return_large_blocks_at_once
from app.server.bind_socket import bind
from app.server.draining import DrainingServer
from app.server.http_protocol import make_protocol
from app.server.log import QueuedHandler, configure_logging
from app.server.open_connections import ConnectionLimits, usable_connections, watch_unread_answers
from app.server.worker_slot import WorkerSlot
from app.settings import Settings

_SWITCH_INTERVAL_S = 0.0005
"""Longest turn of a thread that holds the interpreter while others wait for it.

If the event loop is busy, a thread that decodes waits a hundred times for a turn. With Python's own
5 ms these waits add up to half a second.
"""


def serve_alone(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. Return the exit status.

    Raises:
        OSError: the port can't be opened; then no model has been loaded yet.
    """
    log = configure_logging(settings.log_level)
    with bind(settings.host, settings.port) as listener:
        server = make_server(settings, log)
        server.run(sockets=[listener])
    return 0 if server.started else 1


def serve_as_worker(settings: Settings, worker_slot: WorkerSlot) -> int:
    """Serve as one of several worker processes. Return the exit status."""
    log = configure_logging(settings.log_level)
    server = make_server(settings, log, worker_slot)
    server.run(sockets=[worker_slot.listener])
    return 0 if server.started else 1


def make_server(
    settings: Settings, log: QueuedHandler, worker_slot: WorkerSlot | None = None
) -> DrainingServer:
    """Return a server with an application of its own, not started."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    return_large_blocks_at_once()
    address = None if worker_slot is None else worker_slot.device_address
    app = create_app(settings, device_address=address)
    service = app.state.service
    metrics = service.metrics
    log.on_drop = metrics.dropped_log_lines.inc
    limits = _connection_limits(settings)
    config = uvicorn.Config(
        app,
        loop="auto",  # uvloop if it is installed
        http=make_protocol(limits, metrics),
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
        shares_port=worker_slot is not None,
    )
    server.alongside.append(
        watch_unread_answers(server.server_state.connections, limits.send_timeout_s, metrics)
    )
    if worker_slot is not None:
        metrics.replaced_workers.inc(worker_slot.replaces)
        heartbeats = worker_slot.send_heartbeats(lambda: not service.classifier.faults())
        server.alongside.append(heartbeats)
    return server


def _connection_limits(settings: Settings) -> ConnectionLimits:
    return ConnectionLimits(
        settings.header_timeout_seconds,
        settings.send_timeout_seconds,
        usable_connections(settings.max_connections),
        int(settings.overload_status),
    )
