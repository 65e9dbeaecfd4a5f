"""`/v2`: the Open Inference Protocol (KServe v2, REST), over the same path as `/predict`."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.api.open_inference import Inference, InferResponse
from app.api.open_inference_body import JSON_LENGTH_HEADER, LONG_BYTES, MAX_JSON_BYTES, JsonParts
from app.api.open_inference_metadata import (
    Live,
    ModelMetadata,
    ModelReady,
    Ready,
    ServerMetadata,
)
from app.api.routes.admit_upload import admit_upload
from app.api.routes.dependencies import Deadline, EachOnce, Service, ServiceOf, refuse
from app.api.routes.fast_route import FastRoute
from app.api.routes.openapi_texts import INFER_BODY, PREDICT_CODES, infer_responses
from app.api.schemas import ImageParameters
from app.api.upload import read_body, while_connected
from app.errors import UnknownModel
from app.inference.classifier import by_deadline
from app.models.store import ServedVersion
from app.telemetry import current_request_id

router = APIRouter(prefix="/v2", tags=["open inference protocol"])
infer_router = APIRouter(
    prefix="/v2/models",
    tags=["open inference protocol"],
    dependencies=[EachOnce],
    route_class=FastRoute,
)

_MODEL_CODES = ("unauthorized", "unknown_model", "rate_limited", "not_ready", "overloaded")
_INFER_CODES = tuple(code for code in PREDICT_CODES if code != "not_acceptable")

Parameters = Annotated[ImageParameters, Query()]


@router.get("", summary="Describe the server", responses=infer_responses("overloaded"))
async def server_metadata(request: Request) -> ServerMetadata:
    """Name the server and the extensions of the protocol that it speaks."""
    return ServerMetadata(version=request.app.version)


@router.get("/health/live", summary="Is the process sound?", responses=infer_responses("not_ready"))
async def live(service: ServiceOf) -> Live:
    """Answer as `/livez` does."""
    refuse(service.classifier.faults())
    return Live()


@router.get(
    "/health/ready",
    summary="Does the default model answer?",
    responses=infer_responses("not_ready"),
)
async def ready(service: ServiceOf) -> Ready:
    """Answer as `/readyz` does."""
    refuse(service.classifier.unready_reasons())
    return Ready()


@router.get("/models/{name}", summary="Describe a model", responses=infer_responses(*_MODEL_CODES))
async def model_metadata(name: str, service: ServiceOf) -> ModelMetadata:
    """Name the model's version, its input and its outputs."""
    return ModelMetadata.write(_served(service, name).manifest)


@router.get(
    "/models/{name}/versions/{version}",
    summary="Describe a version",
    responses=infer_responses(*_MODEL_CODES),
)
async def version_metadata(name: str, version: str, service: ServiceOf) -> ModelMetadata:
    """Describe a version of a model; only the current one is served."""
    return ModelMetadata.write(_served(service, name, version).manifest)


@router.get(
    "/models/{name}/ready", summary="Does a model answer?", responses=infer_responses(*_MODEL_CODES)
)
async def model_ready(name: str, service: ServiceOf) -> ModelReady:
    """Answer 200 while a version of the model serves."""
    _served(service, name)
    return ModelReady(name=name)


@router.get(
    "/models/{name}/versions/{version}/ready",
    summary="Does a version answer?",
    responses=infer_responses(*_MODEL_CODES),
)
async def version_ready(name: str, version: str, service: ServiceOf) -> ModelReady:
    """Answer 200 while this version of the model serves."""
    _served(service, name, version)
    return ModelReady(name=name)


_INFER: dict[str, Any] = {
    "openapi_extra": INFER_BODY,
    "response_class": Response,
    "responses": {
        200: {
            "model": InferResponse,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            },
        },
        **infer_responses(*_INFER_CODES),
    },
}


@infer_router.post("/{name}/infer", summary="Classify one radiograph", **_INFER)
async def infer(
    request: Request, parameters: Parameters, deadline: Deadline, service: ServiceOf, name: str
) -> Response:
    """Classify one radiograph, sent as the BYTES tensor `file`: in JSON as base64, or behind the
    JSON as it is (binary tensor data). The outputs are those of `/predict`.
    """
    return await _infer(request, parameters, deadline, service, name)


@infer_router.post(
    "/{name}/versions/{version}/infer",
    summary="Classify one radiograph by a version of a model",
    **_INFER,
)
async def infer_by_version(  # noqa: PLR0913, PLR0917 - what FastRoute gives, and the path
    request: Request,
    parameters: Parameters,
    deadline: Deadline,
    service: ServiceOf,
    name: str,
    version: str,
) -> Response:
    """Classify one radiograph as `infer` does, if this version is the current one."""
    _served(service, name, version)
    return await _infer(request, parameters, deadline, service, name)


async def _infer(
    request: Request, parameters: ImageParameters, deadline: float, service: Service, name: str
) -> Response:
    prediction_request = parameters.prediction_request()
    settings = service.settings
    json_length = request.headers.get(JSON_LENGTH_HEADER)
    with admit_upload(
        request, service, model=name, prediction_request=prediction_request, deadline=deadline
    ) as (admitted, reservation):
        async with by_deadline(deadline):
            with service.metrics.time_stage("receive"):
                body = await read_body(
                    request,
                    settings.max_upload_bytes + MAX_JSON_BYTES,
                    settings.receive_timeout_seconds,
                    reservation,
                    JsonParts(json_length).add,
                )
            inference = await read_inference(body, json_length)
        prediction = await while_connected(
            request, service.classifier.classify(inference.file, admitted)
        )
    answer = inference.respond(prediction, current_request_id())
    return Response(answer.body, headers=answer.headers)


async def read_inference(body: bytes, json_length: str | None) -> Inference:
    """Read a body, in a thread if it is long; raises as `Inference.read`."""
    if len(body) < LONG_BYTES:
        return Inference.read(body, json_length)
    return await asyncio.to_thread(Inference.read, body, json_length)


def _served(service: Service, name: str, version: str | None = None) -> ServedVersion:
    """Return the version that answers; raises `UnknownModel` or `NotReady`."""
    current = service.classifier.store.current(name)
    if version not in (None, str(current.manifest.version)):
        raise UnknownModel(f"Version {current.manifest.version} of this model answers, no other.")
    return current
