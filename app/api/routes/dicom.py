"""`POST /predict/dicom`: the answer as a DICOM object."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.api.routes.admit_upload import admit_and_read
from app.api.routes.dependencies import AcceptsDicom, Deadline, EachOnce, Service, ServiceOf
from app.api.routes.fast_route import FastRoute
from app.api.routes.openapi_texts import PREDICT_CODES, body_of_one, problem_responses
from app.api.schemas import DicomParameters
from app.api.upload import while_connected
from app.dicom_results import MEDIA_TYPE, require_dicom, write_result
from app.inference.classifier import AdmittedRequest, by_deadline

router = APIRouter(tags=["predict"], dependencies=[AcceptsDicom, EachOnce], route_class=FastRoute)

Parameters = Annotated[DicomParameters, Query()]


@router.post(
    "/predict/dicom",
    summary="Classify one DICOM radiograph, answered in DICOM",
    openapi_extra=body_of_one(MEDIA_TYPE, "application/octet-stream"),
    response_class=Response,
    responses={
        200: {"content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}},
        **problem_responses(*PREDICT_CODES),
    },
)
async def predict_dicom(
    request: Request, parameters: Parameters, deadline: Deadline, service: ServiceOf
) -> Response:
    """Classify one DICOM radiograph and give the answer as a DICOM object of the same study.

    `result=sr` is a preliminary, unverified structured report; `result=sc` a picture of
    the evidence that says it is not for diagnosis.  The same request with the same file
    has the same SOP Instance UID.  A PNG or JPEG has no study to refer to and is refused
    with `unsupported_format`.
    """
    async with admit_and_read(
        request,
        service,
        model=parameters.model,
        prediction_request=parameters.prediction_request(),
        deadline=deadline,
    ) as (admitted, data):
        require_dicom(data)
        result = await while_connected(request, _answer(data, admitted, parameters, service))
    disposition = f'attachment; filename="result-{parameters.result}.dcm"'
    return Response(result, media_type=MEDIA_TYPE, headers={"content-disposition": disposition})


async def _answer(
    data: bytes, admitted: AdmittedRequest, parameters: DicomParameters, service: Service
) -> bytes:
    prediction = await service.classifier.classify(data, admitted)
    async with by_deadline(admitted.deadline):
        return await asyncio.to_thread(
            write_result,
            parameters.result,
            data,
            prediction,
            max_inflated_bytes=service.settings.max_inflated_bytes,
        )
