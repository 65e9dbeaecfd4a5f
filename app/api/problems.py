"""Translate errors to HTTP statuses and problem documents (RFC 9457).

Every unsuccessful answer is `application/problem+json` with the same six members, also for unknown
paths and crashes. The only 500 is `inference_failed`.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import (
    ClientGone,
    InferenceFailed,
    MalformedRequest,
    NotFound,
    NotReady,
    Overloaded,
    ServiceError,
    SlowClient,
    Unauthorized,
    Unavailable,
)
from app.telemetry import CLIENT_CLOSED_REQUEST, Metrics, current_request_id
from cxr.errors import ImageError

logger = logging.getLogger("cxr.problems")

PROBLEM_MEDIA_TYPE = "application/problem+json"
_MAX_FAULTS = 10
_TYPE_PREFIX = "urn:problem-type:cxr-serve:"
_OPEN_INFERENCE = "/v2"
"""Paths of a protocol with an error form of its own."""


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """Status and title of all problems of one code."""

    status: int
    title: str


PROBLEM_KINDS: dict[str, ProblemKind] = {
    "malformed_request": ProblemKind(400, "The request can't be understood"),
    "unauthorized": ProblemKind(401, "An API key is needed"),
    "unknown_model": ProblemKind(404, "There is no such model"),
    "forbidden": ProblemKind(403, "A web page of another origin may not do this"),
    "not_found": ProblemKind(404, "There is nothing here"),
    "method_not_allowed": ProblemKind(405, "This address does not take this method"),
    "not_acceptable": ProblemKind(406, "The answer can't be written as the client accepts it"),
    "slow_client": ProblemKind(408, "The body did not arrive in time"),
    "too_large": ProblemKind(413, "The file is too large"),
    "unsupported_format": ProblemKind(415, "The file's format is not supported"),
    "corrupt_image": ProblemKind(422, "The file is damaged"),
    "not_a_radiograph": ProblemKind(422, "The file is no plain radiograph"),
    "not_a_chest": ProblemKind(422, "The file shows another body part"),
    "not_frontal": ProblemKind(422, "The file shows a lateral view"),
    "decode_limit": ProblemKind(422, "Decoding the file was stopped"),
    "misdirected_request": ProblemKind(421, "The service does not answer to this host name"),
    "rate_limited": ProblemKind(429, "This key has used up its calls"),
    "inference_failed": ProblemKind(500, "The model could not answer"),
    "overloaded": ProblemKind(503, "Too much is waiting"),
    "not_ready": ProblemKind(503, "The model is not served now"),
    "not_implemented": ProblemKind(501, "The service does not know this part of HTTP"),
    "deadline_exceeded": ProblemKind(504, "The answer was not ready in time"),
}
"""Status and title of every public code; the list is closed."""

CODES = tuple(PROBLEM_KINDS)


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    model_config = ConfigDict(frozen=True)

    type: str = Field(description="URI of the kind of problem; stable.")
    title: str = Field(description="The kind of problem in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong with this request, for people.")
    code: str = Field(
        description="The kind of problem, for programs.", json_schema_extra={"enum": list(CODES)}
    )
    request_id: str = Field(description="The id under which the log knows this request.")


def problem_of(error: ServiceError | ImageError, *, overload_status: int = 503) -> Problem:
    """Describe an error to the sender of the current request."""
    status = overload_status if isinstance(error, Overloaded) else None
    return make_problem(error.code, str(error), status=status)


def make_problem(
    code: str, detail: str, *, request_id: str | None = None, status: int | None = None
) -> Problem:
    """Return a problem of a public code, about the current request unless an id is given.

    Its status is that of the code unless another one is given.
    """
    kind = PROBLEM_KINDS[code]
    return Problem(
        type=_TYPE_PREFIX + code,
        title=kind.title,
        status=status or kind.status,
        detail=detail,
        code=code,
        request_id=request_id or current_request_id(),
    )


def problem_response(
    problem: Problem, headers: dict[str, str] | None = None, *, path: str
) -> Response:
    """Return a problem as a response, under `/v2` in the form of the Open Inference Protocol."""
    if path == _OPEN_INFERENCE or path.startswith(f"{_OPEN_INFERENCE}/"):
        answer = {"error": f"{problem.code}: {problem.detail}"}
        return JSONResponse(answer, problem.status, headers)
    return Response(problem.model_dump_json(), problem.status, headers, PROBLEM_MEDIA_TYPE)


def install_problems(app: FastAPI, metrics: Metrics, *, overload_status: int = 503) -> None:
    """Let every error of an application end as a counted problem document."""
    problems = _ProblemHandlers(metrics, overload_status)
    app.add_exception_handler(ServiceError, problems.on_error)
    app.add_exception_handler(ImageError, problems.on_error)
    app.add_exception_handler(RequestValidationError, problems.on_bad_parameters)
    app.add_exception_handler(HTTPException, problems.on_http)


class _ProblemHandlers:
    def __init__(self, metrics: Metrics, overload_status: int) -> None:
        self._metrics = metrics
        self._overload_status = overload_status

    async def on_error(self, request: Request, error: Exception) -> Response:
        if isinstance(error, ClientGone):
            self._metrics.rejections.labels(error.code).inc()
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        assert isinstance(error, ServiceError | ImageError)
        problem = problem_of(error, overload_status=self._overload_status)
        return self._answer(request, problem, headers_for(error))

    async def on_bad_parameters(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return self._answer(
            request, make_problem(MalformedRequest.code, _list_faults(error.errors()))
        )

    async def on_http(self, request: Request, error: Exception) -> Response:
        """Translate the framework's errors: unknown paths and methods, unreadable bodies."""
        assert isinstance(error, HTTPException)
        code = {404: NotFound.code, 405: "method_not_allowed"}.get(
            error.status_code, MalformedRequest.code
        )
        detail = (
            "See /docs for what this service offers."
            if error.status_code in (404, 405)
            else "The request can't be read."
        )
        headers = {name.lower(): value for name, value in (error.headers or {}).items()}
        if "GET" in headers.get("allow", "") and "HEAD" not in headers["allow"]:
            headers["allow"] += ", HEAD"  # `app.api.head_requests` answers HEAD as GET
        return self._answer(request, make_problem(code, detail), headers)

    def _answer(
        self, request: Request, problem: Problem, headers: dict[str, str] | None = None
    ) -> Response:
        self._metrics.rejections.labels(problem.code).inc()
        return problem_response(problem, headers, path=request.scope["path"])


class CrashMiddleware:
    """Answer 500 to an exception that nothing else caught, and 503 if the process ends.

    Pure ASGI: starlette's BaseHTTPMiddleware would hide that a client left.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; if it crashes before its answer began, answer with a problem."""
        has_begun = False

        async def watched_send(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except (
            asyncio.CancelledError
        ):  # the process ends now, and this request would have taken longer
            if scope["type"] != "http" or has_begun:
                raise
            error = NotReady("The service went down before the answer was there.", retry_after_s=5)
            await self._answer(scope, error)(scope, receive, send)
        except Exception:
            logger.exception("a request crashed")
            if scope["type"] != "http" or has_begun:
                raise
            failed = InferenceFailed("The service could not answer this request.")
            await self._answer(scope, failed)(scope, receive, send)

    def _answer(self, scope: Scope, error: ServiceError) -> Response:
        self._metrics.rejections.labels(error.code).inc()
        return problem_response(problem_of(error), headers_for(error), path=scope["path"])


def headers_for(error: ServiceError | ImageError) -> dict[str, str]:
    """Return the headers of an error, as Retry-After."""
    if isinstance(error, Unavailable):
        return {"retry-after": str(error.retry_after_s)}
    if isinstance(error, Unauthorized):
        return {"www-authenticate": "Bearer"}
    return {"connection": "close"} if isinstance(error, SlowClient) else {}


def _list_faults(faults: Sequence[dict[str, object]]) -> str:
    """Describe the faults of a request's parameters, the first ten of them."""
    described = [_fault(fault) for fault in faults[:_MAX_FAULTS]]
    num_more = len(faults) - len(described)
    return "; ".join([*described, *([f"and {num_more} more"] if num_more else [])])


def _fault(fault: dict[str, object]) -> str:
    """Describe the fault of one parameter, without its value."""
    location = fault["loc"]
    name = str(location[-1])[:64] if isinstance(location, Sequence) and location else "request"
    if fault["type"] == "extra_forbidden":
        return f"{name}: there is no such parameter"
    return f"{name}: {str(fault['msg']).removeprefix('Value error, ')}"
