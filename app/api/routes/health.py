"""`GET /livez`, `/readyz` and `/metrics`, for orchestrators and scrapers."""

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from app.api.model_answers import LivenessAnswer, ReadinessAnswer
from app.api.routes.dependencies import ServiceOf, refuse
from app.api.routes.openapi_texts import problem_responses
from app.inference.load_report import report

router = APIRouter(tags=["health"])


@router.get("/livez", summary="Is the process sound?", responses=problem_responses("not_ready"))
async def livez(service: ServiceOf) -> LivenessAnswer:
    """Answer 200 while the event loop runs and no runner has died; else a restart helps."""
    refuse(service.classifier.faults())
    return LivenessAnswer()


@router.get(
    "/readyz", summary="Does the default model answer?", responses=problem_responses("not_ready")
)
async def readyz(service: ServiceOf) -> ReadinessAnswer:
    """Answer 200 while the default model serves, else 503 with the reasons."""
    refuse(service.classifier.unready_reasons())
    return ReadinessAnswer(notes=service.classifier.store.notes)


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=PlainTextResponse,
    responses=problem_responses("overloaded"),
)
async def metrics(request: Request, service: ServiceOf) -> Response:
    """Write the metrics of all worker processes."""
    report(service.classifier, service.metrics)
    body, media_type = await service.cached_metrics.text(request.headers.get("accept", ""))
    return Response(body, headers={"content-type": media_type})
