"""`POST /predict` and `POST /predict/batch`."""

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from app.api.multipart import UploadedFile, UploadLimits
from app.api.problems import Problem, problem_of
from app.api.routes.admit_upload import admit_and_read, admit_upload
from app.api.routes.dependencies import AcceptsJson, Deadline, EachOnce, Service, ServiceOf, is_bulk
from app.api.routes.fast_route import FastRoute
from app.api.routes.openapi_texts import (
    BATCH_CODES,
    PREDICT_CODES,
    PREDICTION_EXAMPLE,
    body_of_one,
    body_of_several,
    problem_responses,
)
from app.api.schemas import Answer, PredictionAnswer, PredictParameters
from app.api.upload import read_uploads, while_connected
from app.errors import ServiceError
from app.inference.classifier import AdmittedRequest, by_deadline
from app.settings import Settings
from app.telemetry import current_request_id
from cxr.errors import ImageError

router = APIRouter(tags=["predict"], dependencies=[AcceptsJson, EachOnce], route_class=FastRoute)

Parameters = Annotated[PredictParameters, Query()]


class FilePrediction(Answer):
    """The answer about one file of several."""

    filename: str | None = Field(description="As the sender named it.")
    prediction: PredictionAnswer


class FileProblem(Answer):
    """The problem of one file of several."""

    filename: str | None = Field(description="As the sender named it.")
    problem: Problem


FileAnswer = FilePrediction | FileProblem


class BatchAnswer(Answer):
    """One result for each file, in the order they were sent."""

    results: list[FileAnswer]


@router.post(
    "/predict",
    summary="Classify one radiograph",
    openapi_extra=body_of_one(),
    responses={
        200: {
            "model": PredictionAnswer,
            "content": {"application/json": {"example": PREDICTION_EXAMPLE}},
        },
        **problem_responses(*PREDICT_CODES),
    },
)
async def predict(
    request: Request, parameters: Parameters, deadline: Deadline, service: ServiceOf
) -> Response:
    """Classify one DICOM, PNG or JPEG radiograph.

    Send it as a multipart part named `file`, or as the body itself. The content decides about the
    format, never a name or a media type.
    """
    async with admit_and_read(
        request,
        service,
        model=parameters.model,
        prediction_request=parameters.prediction_request(),
        deadline=deadline,
    ) as (admitted, data):
        prediction = await while_connected(request, service.classifier.classify(data, admitted))
    return _json(PredictionAnswer.write(prediction, current_request_id()))


@router.post(
    "/predict/batch",
    summary="Classify several radiographs",
    openapi_extra=body_of_several(),
    responses={
        200: {"model": BatchAnswer, "content": {"application/json": {"example": {"results": [
            {"filename": "one.dcm", "prediction": PREDICTION_EXAMPLE},
        ]}}}},
        **problem_responses(*BATCH_CODES),
    },
)  # fmt: skip
async def predict_batch(
    request: Request, parameters: Parameters, deadline: Deadline, service: ServiceOf
) -> Response:
    """Classify several radiographs, sent as multipart parts named `files`.

    Each file is admitted alone and fails alone; the answers keep the files' order.
    """
    with admit_upload(
        request,
        service,
        model=parameters.model,
        prediction_request=parameters.prediction_request(),
        deadline=deadline,
    ) as (admitted, reservation):
        async with by_deadline(deadline):
            with service.metrics.time_stage("receive"):
                files = await read_uploads(
                    request, _limits_of_several(service.settings), reservation
                )
        answers = [_answer_file(file, admitted, service) for file in files]
        gathered = _in_turn(answers) if is_bulk(request) else _at_once(answers)
        results = await while_connected(request, gathered)
    return _json(BatchAnswer(results=results))


async def _at_once(answers: list[Coroutine[Any, Any, FileAnswer]]) -> list[FileAnswer]:
    return await asyncio.gather(*answers)


async def _in_turn(answers: list[Coroutine[Any, Any, FileAnswer]]) -> list[FileAnswer]:
    """Answer one file after the other, so that nobody waits for more than one of them."""
    try:
        return [await answer for answer in answers]
    finally:
        for answer in answers:
            answer.close()  # does nothing to those that were awaited


async def _answer_file(
    file: UploadedFile, admitted: AdmittedRequest, service: Service
) -> FileAnswer:
    """Answer one file of several; its fault does not concern the others."""
    try:
        prediction = await service.classifier.classify(file.read(), admitted)
    except (ImageError, ServiceError) as error:
        service.metrics.rejections.labels(error.code).inc()
        problem = problem_of(error, overload_status=int(service.settings.overload_status))
        return FileProblem(filename=file.filename, problem=problem)
    return FilePrediction(
        filename=file.filename, prediction=PredictionAnswer.write(prediction, current_request_id())
    )


def _limits_of_several(settings: Settings) -> UploadLimits:
    return UploadLimits(
        settings.max_upload_bytes,
        settings.max_batch_bytes,
        settings.max_batch_files,
        settings.receive_timeout_seconds,
    )


def _json(answer: Answer) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json")
