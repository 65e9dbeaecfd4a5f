"""Admit a request with an upload by its headers, then read its body."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from fastapi import Request

from app.api.multipart import UploadLimits
from app.api.routes.dependencies import Service
from app.api.sender import sender_of
from app.api.upload import announced_bytes, read_upload
from app.api.upload_budget import Reservation
from app.inference.classifier import AdmittedRequest, by_deadline
from app.inference.request import PredictionRequest
from app.telemetry import record_admission


@contextmanager
def admit_upload(
    request: Request,
    service: Service,
    *,
    model: str | None,
    prediction_request: PredictionRequest,
    deadline: float,
) -> Iterator[tuple[AdmittedRequest, Reservation]]:
    """Hold a queue place and a reservation of memory, before anything of the body is read.

    `model` None is the default one. Raises as `Classifier.choose` does.
    """
    num_bytes = announced_bytes(request)
    with (
        service.classifier.choose(
            model,
            prediction_request,
            sender=sender_of(request.scope),
            num_bytes=num_bytes,
            deadline=deadline,
        ) as admitted,
        service.upload_budget.reserve() as reservation,
    ):
        record_admission()
        yield admitted, reservation


@asynccontextmanager
async def admit_and_read(
    request: Request,
    service: Service,
    *,
    model: str | None,
    prediction_request: PredictionRequest,
    deadline: float,
) -> AsyncIterator[tuple[AdmittedRequest, bytes]]:
    """Admit a request as `admit_upload` does, and read its one file by the deadline."""
    with admit_upload(
        request, service, model=model, prediction_request=prediction_request, deadline=deadline
    ) as (admitted, reservation):
        async with by_deadline(deadline):
            data = await _read_one(request, service, reservation)
        yield admitted, data


async def _read_one(request: Request, service: Service, reservation: Reservation) -> bytes:
    """Return the one file of a body; raise as `read_upload` does."""
    settings = service.settings
    limits = UploadLimits(
        settings.max_upload_bytes, settings.max_upload_bytes, 1, settings.receive_timeout_seconds
    )
    with service.metrics.time_stage("receive"):
        return await read_upload(request, limits, reservation)
