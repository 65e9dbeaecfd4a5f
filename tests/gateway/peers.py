"""Archives of the tests' own that store, refuse, lose and hang up as they are told."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from io import BytesIO
from typing import Any, Literal

import uvicorn
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from tests.waiting import wait_until

Manner = Literal[
    "store", "refuse", "reject", "store and hang up", "hang up", "lose", "duplicate", "page"
]  # fmt: skip

FIND = "1.2.840.10008.5.1.4.1.2.2.1"
REPORT = "1.2.840.10008.5.1.4.1.1.88.34"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@dataclass
class Shelf:
    """What an archive was sent, and how it takes what comes next."""

    manner: Manner = "store"
    held: dict[str, Dataset] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    asked: int = 0

    def take(self, dataset: Dataset) -> int:
        """Take an object as the manner says; gives the status of C-STORE."""
        uid = str(dataset.SOPInstanceUID)
        self.sent.append(uid)
        if self.manner == "refuse":
            return 0xA700
        if self.manner == "reject":
            return 0xC001
        if self.manner in ("store", "store and hang up", "duplicate"):
            self.held[uid] = dataset
        return 0x0111 if self.manner == "duplicate" else 0


class _Broken(Response):
    """Promises more bytes than it sends, so that the connection breaks."""

    def __init__(self) -> None:
        super().__init__(headers={"content-length": "999"})


@contextmanager
def stow_archive(shelf: Shelf, *, port: int = 0, **tls: Any) -> Iterator[str]:
    """Serve STOW-RS and QIDO-RS until the block ends; gives the address."""

    async def store(request: Request) -> Response:
        head = b"Content-Type: " + request.headers["content-type"].encode() + b"\r\n\r\n"
        message = BytesParser().parsebytes(head + await request.body())
        status = 0
        for part in message.get_payload():
            content = part.get_payload(decode=True)  # type: ignore[union-attr]
            status = shelf.take(dcmread(BytesIO(content)))  # type: ignore[arg-type]
        if shelf.manner in ("store and hang up", "hang up"):
            return _Broken()
        if shelf.manner == "page":
            return HTMLResponse("<p>Please log in.</p>")
        if status:
            failed = {"00081198": {"Value": [{"00081197": {"Value": [status]}}]}}
            return JSONResponse(failed, status_code=409)
        return JSONResponse({"00081199": {"Value": [{}]}})

    async def query(request: Request) -> Response:
        shelf.asked += 1
        uid = request.query_params["SOPInstanceUID"]
        return JSONResponse([{"00080018": {"Value": [uid]}}] if uid in shelf.held else [])

    routes = [Route("/studies", store, methods=["POST"]), Route("/instances", query)]
    with serving(Starlette(routes=routes), port=port, **tls) as url:
        yield url


@contextmanager
def serving(app: Starlette, *, port: int = 0, **tls: Any) -> Iterator[str]:
    """Serve an application on the loopback until the block ends; gives the address."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, lifespan="off", log_config=None, access_log=False, **tls
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        found = server.servers[0].sockets[0].getsockname()[1]
        yield f"{'https' if tls else 'http'}://127.0.0.1:{found}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def dimse_archive(
    shelf: Shelf, *, port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[int]:
    """Be an SCP of C-STORE and C-FIND until the block ends; gives the port."""

    def store(event: evt.Event) -> int:
        dataset = event.dataset
        status = shelf.take(dataset)
        if shelf.manner in ("store and hang up", "hang up"):
            event.assoc.abort()
        return status

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        shelf.asked += 1
        if str(event.identifier.SOPInstanceUID) in shelf.held:
            yield 0xFF00, event.identifier
        yield 0x0000, None

    entity = AE("ARCHIVE")
    for uid in (REPORT, CAPTURE, FIND):
        entity.add_supported_context(uid)
    handlers: list[Any] = [(evt.EVT_C_STORE, store), (evt.EVT_C_FIND, find)]
    server = entity.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=handlers, ssl_context=tls
    )
    assert server is not None
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
