"""HTTP of the gateway: STOW-RS, the page of what is stuck, verdicts, metrics and health."""

import hmac
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import dead_letters, deliveries
from gateway.node import Node
from gateway.queue_page import render_page
from gateway.results_table import UnknownAnswer, add_verdict
from gateway.stow import StowRequest, receive_study

_OPEN = frozenset({"/livez", "/readyz", "/metrics"})
"""Paths that need no key: nothing of a patient is in them."""

_MAX_VERDICT_BYTES = 10_000


class VerdictRequest(BaseModel):
    """A reader's verdict about one answer."""

    model_config = ConfigDict(extra="forbid")

    verdict: Literal["accept", "reject", "other"]
    label: Annotated[str, Field(pattern=r"^[A-Za-z0-9 _.-]{1,64}$")] | None = None
    sop_instance_uid: str | None = Field(None, max_length=64)
    study_instance_uid: str | None = Field(None, max_length=64)
    accession_hash: str | None = Field(None, pattern=r"^[0-9a-f]{40}$")

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        names = (self.sop_instance_uid, self.study_instance_uid, self.accession_hash)
        if sum(name is not None for name in names) != 1:
            raise ValueError("name sop_instance_uid, study_instance_uid or accession_hash")
        if (self.verdict == "other") != (self.label is not None):
            raise ValueError('a label belongs to the verdict "other"')
        return self


class KeyRequired:
    """Asks for the key of `[http] key_file`, if there is one."""

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        """Guard an application."""
        self._app, self._key = app, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 without the key."""
        if scope["type"] == "http" and self._key is not None and scope["path"] not in _OPEN:
            stated = Request(scope).headers.get("authorization", "")
            if not hmac.compare_digest(stated.encode(), f"Bearer {self._key}".encode()):
                await _problem(401, "unauthorized")(scope, receive, send)
                return
        await self._app(scope, receive, send)


class HttpRoutes:
    """The handlers of one gateway."""

    def __init__(self, node: Node) -> None:
        """Answer for a gateway."""
        self._node = node

    async def store(self, request: Request) -> Response:
        """STOW-RS (PS3.18 10.5): each instance is durable before it is named as stored."""
        stow = StowRequest(
            content_type=request.headers.get("content-type", ""),
            study_uid=request.path_params.get("study"),
            max_instance_bytes=self._node.parts.settings.node.max_instance_mb * 1_000_000,
        )
        return await receive_study(stow, request.stream(), self._node.receiver)

    async def verdict(self, request: Request) -> Response:
        """Note what a reader says of an answer."""
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_VERDICT_BYTES:
                return _problem(413, "too_large")
        try:
            asked = VerdictRequest.model_validate_json(bytes(body))
        except ValidationError as exc:
            fields = sorted({".".join(map(str, error["loc"])) for error in exc.errors()})
            return _problem(400, "malformed_request", fields=fields)
        try:
            number = await run_in_threadpool(self._note_verdict, asked)
        except UnknownAnswer:
            return _problem(404, "unknown_answer")
        return JSONResponse({"answer": number}, status_code=201)

    def _note_verdict(self, asked: VerdictRequest) -> int:
        parts = self._node.parts
        column: Literal["instance_hash", "study_hash", "accession_hash"]
        if asked.sop_instance_uid is not None:
            column, value = "instance_hash", parts.key.hash(asked.sop_instance_uid)
        elif asked.study_instance_uid is not None:
            column, value = "study_hash", parts.key.hash(asked.study_instance_uid)
        else:
            column, value = "accession_hash", str(asked.accession_hash)
        number = parts.database.write(
            "verdict",
            lambda connection: add_verdict(connection, column, value, asked.verdict, asked.label),
        )
        parts.metrics.verdicts.labels(asked.verdict).inc()
        return number

    async def page(self, _request: Request) -> Response:
        """Show what waits, what is stuck, and why."""
        return HTMLResponse(await run_in_threadpool(render_page, self._node))

    async def resend(self, request: Request) -> Response:
        """Let a dead letter be tried again."""
        number = str(request.path_params["number"])
        names = self._node.parts.settings.destination_names
        try:
            revived = await run_in_threadpool(
                self._node.parts.database.write,
                "revived",
                lambda connection: dead_letters.revive(connection, number, names),
            )
        except dead_letters.RemovedDestination:
            return _problem(409, deliveries.REMOVED)
        return Response(status_code=204) if revived else _problem(404, "not_found")

    async def metrics(self, _request: Request) -> Response:
        """Give Prometheus the metrics."""
        return PlainTextResponse(await run_in_threadpool(self._node.parts.metrics.render))

    async def live(self, _request: Request) -> Response:
        """Say whether every part lives."""
        faults = self._node.faults
        return JSONResponse({"faults": faults}, status_code=503 if faults else 200)


def create_app(node: Node) -> Starlette:
    """Return the application of a running gateway."""
    web, key_file = HttpRoutes(node), node.parts.settings.http.key_file
    key = key_file.read_text().strip() if key_file else None
    return Starlette(
        routes=[
            Route("/dicomweb/studies", web.store, methods=["POST"]),
            Route("/dicomweb/studies/{study}", web.store, methods=["POST"]),
            Route("/gateway", web.page),
            Route("/gateway/verdict", web.verdict, methods=["POST"]),
            Route("/gateway/dead/{number}/resend", web.resend, methods=["POST"]),
            Route("/metrics", web.metrics),
            Route("/livez", web.live),
            Route("/readyz", web.live),
        ],
        middleware=[Middleware(KeyRequired, key=key)],
    )


def _problem(status: int, code: str, **more: object) -> Response:
    """Return a problem document (RFC 9457)."""
    return JSONResponse(
        {"type": "about:blank", "status": status, "code": code, **more},
        status_code=status,
        media_type="application/problem+json",
    )
