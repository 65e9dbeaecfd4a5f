"""Ways for a test to have the service running: in this process, or over a real socket."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from app.inference.classifier import Classifier
from app.main import create_app
from app.models.tuning import GraphOpener
from app.server.http_protocol import make_protocol
from app.server.open_connections import ConnectionLimits, watch_unread_answers
from app.settings import Settings
from cxr.graph import open_graph


@dataclass(frozen=True, slots=True)
class Served:
    """A running service, and a client that speaks to it."""

    app: FastAPI
    client: httpx.AsyncClient

    @property
    def classifier(self) -> Classifier:
        """The heart of the service."""
        classifier = self.app.state.service.classifier
        assert isinstance(classifier, Classifier)
        return classifier


@asynccontextmanager
async def serving(
    store: Path, *, opener: GraphOpener = open_graph, **settings: Any
) -> AsyncIterator[Served]:
    """Run the service in this event loop, without a socket."""
    app = make_app(store, opener, settings)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        yield Served(app, client)


@asynccontextmanager
async def listening(
    store: Path,
    *,
    opener: GraphOpener = open_graph,
    limits: ConnectionLimits | None = None,
    **settings: Any,
) -> AsyncIterator[Served]:
    """Run the service in this event loop behind a real socket."""
    app = make_app(store, opener, settings)
    metrics = app.state.service.metrics
    limits = limits or ConnectionLimits(header_timeout_s=1.0)
    protocol = make_protocol(limits, metrics)
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, http=protocol, ws="none", log_config=None, access_log=False)
    )
    running = asyncio.create_task(server.serve())
    watching = asyncio.create_task(
        watch_unread_answers(server.server_state.connections, limits.send_timeout_s, metrics)
    )
    while not server.started:
        await asyncio.sleep(0.01)
        assert not running.done()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            yield Served(app, client)
    finally:
        server.should_exit = True
        await running
        watching.cancel()


def make_app(store: Path, opener: GraphOpener, settings: dict[str, Any]) -> FastAPI:
    """Make the application on a store, with a bright made model as the default one."""
    # Under a file nothing can be kept: no test may meet what another one measured.
    pinned = {
        "default_model": "bright",
        "decode_workers": 1,
        "engine_lanes": 2,
        "engine_threads": 1,
        "max_batch": 4,
    }
    return create_app(
        Settings(store=store, cache_dir=Path(os.devnull) / "cache", **{**pinned, **settings}),
        graph_opener=opener,
    )


async def until(happens: Any, *, seconds: float = 60.0) -> None:
    """Wait until a condition, given as a function, holds."""
    async with asyncio.timeout(seconds):
        while not happens():  # noqa: ASYNC110 -- most conditions have no event to wait for
            await asyncio.sleep(0.005)
