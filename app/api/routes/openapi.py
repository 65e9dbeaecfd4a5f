"""The OpenAPI document: FastAPI's own, without what this service never answers."""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import Response

from app.api.problems import Problem
from app.api.routes.openapi_texts import infer_responses, problem_responses

_OF_FASTAPI = ("HTTPValidationError", "ValidationError")
"""Schemas of FastAPI's own error answer, which this service never gives."""


def install_openapi(app: FastAPI) -> None:
    """Add `/openapi.json`; the document is written once, when it is first asked for."""

    @cache
    def document() -> bytes:
        return json.dumps(make_document(app), separators=(",", ":")).encode()

    async def send_document(_: Request) -> Response:
        return Response(document(), media_type="application/json")

    app.add_api_route("/openapi.json", send_document, include_in_schema=False, response_model=None)


def make_document(app: FastAPI) -> dict[str, Any]:
    """Return the document of an application."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=f"{app.summary}. {app.description}",
        routes=app.routes,
    )
    _drop_foreign_errors(document)
    _add_common_problems(document)
    document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
    _offer_key(document)
    for operation in _operations(document):
        for parameter in operation.get("parameters", ()):
            _forbid_null(parameter["schema"])
    return document


def _forbid_null(schema: dict[str, Any]) -> None:
    """Take null out of a parameter's schema: a parameter can be left out, and is never null."""
    options = [kind for kind in schema.pop("anyOf", ()) if kind != {"type": "null"}]
    if len(options) == 1:
        schema.update({**options[0], **schema})
    elif options:
        schema["anyOf"] = options


def _drop_foreign_errors(document: dict[str, Any]) -> None:
    for operation in _operations(document):
        responses = operation["responses"]
        if _OF_FASTAPI[0] in str(responses.get("422", "")):
            del responses["422"]
    for name in _OF_FASTAPI:
        document["components"]["schemas"].pop(name, None)


def _add_common_problems(document: dict[str, Any]) -> None:
    """Add what may be answered before an endpoint is reached."""
    for path, operations in document["paths"].items():
        describe = infer_responses if path.startswith("/v2") else problem_responses
        for method, operation in operations.items():
            codes = ["misdirected_request"]
            if method == "post":
                codes += ["forbidden", "not_implemented"]
            for status, response in describe(*codes).items():
                if response.pop("model", None):
                    schema = {"$ref": "#/components/schemas/ErrorAnswer"}
                    response["content"] = {"application/json": {"schema": schema}}
                operation["responses"][str(status)] = response


def _offer_key(document: dict[str, Any]) -> None:
    """Say where an API key goes, and that a service may be set up without one."""
    document["components"]["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "An API key."}
    }
    for operation in _operations(document):
        if "401" in operation["responses"]:
            operation["security"] = [{"key": []}, {}]


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()
