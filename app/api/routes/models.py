"""`GET /models` and the addresses below it."""

import re

from fastapi import APIRouter
from markdown_it import MarkdownIt
from starlette.responses import HTMLResponse, Response

from app.api.model_answers import ModelAnswer, ModelsAnswer
from app.api.routes.context import AcceptsJson, ServiceOf
from app.api.routes.html import html_response
from app.api.routes.openapi_texts import problem_responses
from app.errors import NotFound

router = APIRouter(prefix="/models", tags=["models"])


@router.get(
    "",
    summary="List the models",
    dependencies=[AcceptsJson],
    responses=problem_responses("unauthorized", "not_acceptable", "rate_limited"),
)
async def list_models(service: ServiceOf) -> ModelsAnswer:
    """List every model of the store: versions, finding, scope, metrics, thresholds, engine."""
    return ModelsAnswer.write(service.classifier.store, service.settings)


@router.get(
    "/{name}", summary="Describe a model", dependencies=[AcceptsJson],
    responses=problem_responses("unauthorized", "unknown_model", "not_acceptable", "rate_limited"),
)  # fmt: skip
async def describe_model(name: str, service: ServiceOf) -> ModelAnswer:
    """Describe one model: the version that answers, and why others do not."""
    return ModelAnswer.write(service.classifier.store.model(name), service.settings)


@router.get(
    "/{name}/card", summary="Show a model's card",
    response_class=HTMLResponse,
    responses=problem_responses("unauthorized", "unknown_model", "not_found", "rate_limited",
    "not_ready"),
)  # fmt: skip
async def show_card(name: str, service: ServiceOf) -> Response:
    """Show MODEL_CARD.md of the version that answers, as a page."""
    bundle = service.classifier.store.current(name).bundle
    try:
        text = bundle.card
    except OSError as exc:
        raise NotFound("This version has no MODEL_CARD.md.") from exc
    return html_response(f"{name} {bundle.manifest.version}", render_card(text), home="../../")


def render_card(text: str) -> str:
    """Return a model card as HTML. Tags in it are shown as text; its front matter is left out."""
    body = _FRONT_MATTER.sub("", text, count=1)
    return str(MarkdownIt("commonmark", {"html": False}).enable("table").render(body))


_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
"""YAML that model hubs read."""
