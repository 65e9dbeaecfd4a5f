"""Dependencies of the endpoints: the running service, a deadline, checks of headers.

All are `async` though nothing is awaited: FastAPI would run plain functions in a thread.
"""

import time
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Header, Request
from fastapi.exceptions import RequestValidationError
from pydantic import Field, TypeAdapter, ValidationError

from app.api.answer_budget import AnswerBudget
from app.api.bulk_priority import Slack
from app.api.cached_metrics import CachedMetrics
from app.api.decimal_number import DecimalNumber
from app.api.upload_budget import UploadBudget
from app.errors import MalformedRequest, NotAcceptable, NotReady
from app.inference.classifier import Classifier
from app.settings import Settings
from app.telemetry import Metrics


@dataclass(frozen=True, slots=True)
class Service:
    """The parts of the running service that endpoints use."""

    settings: Settings
    metrics: Metrics
    classifier: Classifier
    upload_budget: UploadBudget
    slack: Slack
    answer_budget: AnswerBudget
    cached_metrics: CachedMetrics


def refuse(reasons: list[str]) -> None:
    """Raise `NotReady` if there are reasons."""
    if reasons:
        raise NotReady(" ".join(reasons))


def service_of(request: Request) -> Service:
    """Return the running service."""
    return cast("Service", request.app.state.service)


async def _service(request: Request) -> Service:
    return service_of(request)


async def _accept_json(request: Request) -> None:
    """Raise `NotAcceptable` if the client reads no JSON."""
    _require_acceptable(request, "application/json")


async def _accept_dicom(request: Request) -> None:
    """Raise `NotAcceptable` if the client reads no DICOM."""
    _require_acceptable(request, "application/dicom")


async def _accept_png(request: Request) -> None:
    """Raise `NotAcceptable` if the client reads no PNG."""
    _require_acceptable(request, "image/png")


def _require_acceptable(request: Request, media_type: str) -> None:
    accept = (
        ",".join(request.headers.getlist("accept")).lower() or "*/*"
    )  # several lines are one list: RFC 9110 section 5.3
    ranges = {
        name.strip(): options
        for name, _, options in (entry.partition(";") for entry in accept.split(","))
    }
    for name in (
        media_type,
        media_type.partition("/")[0] + "/*",
        "*/*",
    ):  # the most specific one decides: section 12.5.1
        if name in ranges:
            if _is_excluded(ranges[name]):
                break
            return
    raise NotAcceptable(f"The answer is {media_type}.")


async def _refuse_repeats(request: Request) -> None:
    """Raise `MalformedRequest` if a parameter is given twice, for either could be meant."""
    names = [name for name, _ in request.query_params.multi_items()]
    if len(names) != len(set(names)):
        raise MalformedRequest("A parameter is given more than once.")


def _is_excluded(options: str) -> bool:
    """Return whether a media range has the weight 0 (RFC 9110, 12.4.2)."""
    return any(
        option.strip() in ("q=0", "q=0.0", "q=0.00", "q=0.000") for option in options.split(";")
    )


_TIMEOUT_HEADER = "x-request-timeout-seconds"
_Timeout = Annotated[DecimalNumber, Field(gt=0, le=3600, allow_inf_nan=False)]
_TIMEOUT = TypeAdapter(_Timeout)


async def _deadline(
    request: Request,
    x_request_timeout_seconds: Annotated[  # noqa: ARG001 -- declared for the OpenAPI document; `deadline_of` reads it
        _Timeout | None, Header(description="Seconds after which the answer is worth nothing.")
    ] = None,
    x_priority: Annotated[  # noqa: ARG001 -- as above; `is_bulk` reads it
        str | None,
        Header(description="`bulk` waits until the service has a core to spare."),
    ] = None,
) -> float:
    return deadline_of(request, service_of(request))  # as `app.api.routes.fast_route` does


def deadline_of(request: Request, service: Service) -> float:
    """Return the time by which to answer, on `time.monotonic`'s clock.

    Raises:
        RequestValidationError: the header holds no such time.
        MalformedRequest: the header is given twice.
    """
    stated = request.headers.getlist(_TIMEOUT_HEADER)
    if not stated:
        return time.monotonic() + service.settings.default_timeout_seconds
    if len(stated) > 1:
        raise MalformedRequest(f"{_TIMEOUT_HEADER} is given more than once.")
    try:
        return time.monotonic() + _TIMEOUT.validate_python(stated[0])
    except ValidationError as exc:
        raise RequestValidationError(
            [{**fault, "loc": ("header", _TIMEOUT_HEADER)} for fault in exc.errors()]
        ) from exc


def is_bulk(request: Request) -> bool:
    """Tell whether a request gives way to all others."""
    return request.headers.get("x-priority", "").strip().lower() == "bulk"


ServiceOf = Annotated[Service, Depends(_service)]
Deadline = Annotated[float, Depends(_deadline)]
AcceptsJson = Depends(_accept_json)
AcceptsDicom = Depends(_accept_dicom)
AcceptsPng = Depends(_accept_png)
EachOnce = Depends(_refuse_repeats)
