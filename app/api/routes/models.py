"""`GET /models` and the addresses below it."""

from fastapi import APIRouter
from starlette.responses import HTMLResponse, Response

from app.api.model_answers import ModelAnswer, ModelsAnswer
from app.api.routes.dependencies import AcceptsJson, ServiceOf
from app.api.routes.html import html_response
from app.api.routes.openapi_texts import problem_responses
from app.errors import NotFound

router = APIRouter(prefix="/models", tags=["models"])


@router.get(
    "",
    summary="List the models",
    dependencies=[AcceptsJson],
    responses=problem_responses("unauthorized", "not_acceptable", "rate_limited", "overloaded"),
)
async def list_models(service: ServiceOf) -> ModelsAnswer:
    """List every model of the store: versions, finding, scope, metrics, thresholds, engine."""
    return ModelsAnswer.write(service.classifier.store, service.settings)


@router.get(
    "/{name}", summary="Describe a model", dependencies=[AcceptsJson],
    responses=problem_responses("unauthorized", "unknown_model", "not_acceptable", "rate_limited",
    "overloaded"),
)  # fmt: skip
async def describe_model(name: str, service: ServiceOf) -> ModelAnswer:
    """Describe one model: the version that answers, and why others do not."""
    return ModelAnswer.write(service.classifier.store.model(name), service.settings)


@router.get(
    "/{name}/card", summary="Show a model's card",
    response_class=HTMLResponse,
    responses=problem_responses("unauthorized", "unknown_model", "not_found", "rate_limited",
    "not_ready", "overloaded"),
)  # fmt: skip
async def show_card(name: str, service: ServiceOf) -> Response:
    """Show MODEL_CARD.md of the version that answers, as a page."""
    version = service.classifier.store.current(name)
    if not version.card_html:
        raise NotFound("This version has no MODEL_CARD.md.")
    title = f"{name} {version.manifest.version}"
    return html_response(title, version.card_html, home="../../")
