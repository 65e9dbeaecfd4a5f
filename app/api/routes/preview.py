"""`POST /preview`: an upload as the picture that the service reads."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.routes.admit_upload import admit_and_read
from app.api.routes.dependencies import AcceptsPng, Deadline, EachOnce, ServiceOf
from app.api.routes.fast_route import FastRoute
from app.api.routes.openapi_texts import PREVIEW_CODES, body_of_one, problem_responses
from app.api.upload import while_connected
from app.inference.request import PredictionRequest

router = APIRouter(tags=["predict"], dependencies=[AcceptsPng, EachOnce], route_class=FastRoute)


@router.post(
    "/preview",
    summary="Show one radiograph",
    openapi_extra=body_of_one(),
    response_class=Response,
    responses={
        200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}},
        **problem_responses(*PREVIEW_CODES),
    },
)
async def preview(request: Request, deadline: Deadline, service: ServiceOf) -> Response:
    """Return one DICOM, PNG or JPEG radiograph as a picture for people.

    It is a grey PNG of 8 bits: upright, black and white as in MONOCHROME2, windowed as
    `processing.intensity` of `/predict` says. A side has at most 4096 pixels; larger images are
    averaged down. Nothing is classified. Drawing takes a place in the default model's queue.
    """
    async with admit_and_read(
        request, service, model=None, prediction_request=PredictionRequest(), deadline=deadline
    ) as (admitted, data):
        picture = await while_connected(request, service.classifier.preview(data, admitted))
    return Response(picture, media_type="image/png")
