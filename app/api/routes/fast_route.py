"""Routes that FastAPI documents and that read their own parameters.

FastAPI resolves an endpoint's parameters for each request. For `/predict` that takes the event loop
longer than admitting, logging and answering an upload. Here one pydantic model reads the query, and
`deadline_of` reads the header. Errors go to the application's own handlers, as elsewhere.
Declarations, document and error messages stay FastAPI's own.
"""

from collections.abc import Callable, Coroutine
from functools import cached_property
from typing import Any, get_type_hints

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.routes.dependencies import deadline_of, is_bulk, service_of


class _NoParameters(BaseModel):
    """The query of an endpoint without parameters."""

    model_config = ConfigDict(extra="forbid")


class FastRoute(APIRoute):
    """A route of an endpoint that takes `request`, `deadline`, `service` and maybe `parameters`.

    The endpoint takes the parts of its path, too.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request whose path fits, without the exit stacks of FastAPI's dependencies."""
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        response = await self._answer(Request(scope, receive, send))
        await response(scope, receive, send)

    @cached_property
    def _answer(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self.get_route_handler()

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function that answers requests; called once, when the route is made."""
        endpoint: Callable[..., Coroutine[Any, Any, Response]] = self.endpoint
        checks = [
            dependency.dependency for dependency in self.dependencies if dependency.dependency
        ]
        wanted: type[BaseModel] = get_type_hints(endpoint).get("parameters", _NoParameters)

        async def handle(request: Request) -> Response:
            for check in checks:
                await check(request)
            service = service_of(request)
            parameters = _read(wanted, request)
            arguments: dict[str, Any] = (
                {} if wanted is _NoParameters else {"parameters": parameters}
            )
            deadline = deadline_of(request, service)
            if is_bulk(request):
                await service.slack.wait(deadline)
            try:
                return await endpoint(
                    request=request,
                    deadline=deadline,
                    service=service,
                    **arguments,
                    **request.path_params,
                )
            finally:
                service.slack.look()

        return handle


def _read(model: type[BaseModel], request: Request) -> BaseModel:
    """Return the query; raise `RequestValidationError`, as FastAPI would."""
    try:
        return model.model_validate(dict(request.query_params))
    except ValidationError as exc:
        raise RequestValidationError(exc.errors()) from exc
