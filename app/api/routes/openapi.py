"""The OpenAPI document: FastAPI's own, told in the words of OpenAPI 3.0.

Swagger UI as it is packaged for Python reads OpenAPI 3.0 and no later, and so do
many client generators; pydantic writes the JSON Schema of OpenAPI 3.1.
"""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.api.problems import Problem
from app.api.routes.openapi_texts import infer_responses, problem_responses

VERSION = "3.0.3"
_OF_FASTAPI = ("HTTPValidationError", "ValidationError")
"""Schemas of FastAPI's own error answer, which this service never gives."""


def install_openapi(app: FastAPI) -> None:
    """Make `/openapi.json` serve our document; it is made once, when it is first asked for."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = make_document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def make_document(app: FastAPI) -> dict[str, Any]:
    """Write the document of an application."""
    document = get_openapi(
        title=app.title, version=app.version, summary=None, description=f"{app.summary}. "
                                                                        f"{app.description}",
                                                                        routes=app.routes
    )  # fmt: skip
    document["openapi"] = VERSION
    _drop_foreign_errors(document)
    _add_common_problems(document)
    document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
    _offer_key(document)
    document = {key: _as_3_0(value) for key, value in document.items()}
    for operation in _operations(document):
        for parameter in operation.get("parameters", ()):
            parameter["schema"].pop(
                "nullable", None
            )  # a query or a header can be left out, and is never null
    return document


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


def _as_3_0(node: Any) -> Any:
    """Rewrite a tree of JSON Schema 2020-12 in the dialect of OpenAPI 3.0."""
    if isinstance(node, list):
        return [_as_3_0(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: _as_3_0(value) for key, value in node.items()}
    for rewrite in (_rewrite_null, _rewrite_const, _rewrite_exclusive, _rewrite_examples):
        rewrite(node)
    return node


def _rewrite_null(node: dict[str, Any]) -> None:
    """`anyOf: [X, null]` becomes a nullable X."""
    options = node.get("anyOf")
    if not isinstance(options, list) or {"type": "null"} not in options:
        return
    rest = [option for option in options if option != {"type": "null"}]
    del node["anyOf"]
    node["nullable"] = True
    if len(rest) > 1:
        node["anyOf"] = rest
    elif "$ref" in rest[0]:
        node["allOf"] = rest  # a $ref hides its neighbours in 3.0
    else:
        node.update({**rest[0], **node})


def _rewrite_const(node: dict[str, Any]) -> None:
    if isinstance(node.get("const"), str) and "type" in node:
        node["enum"] = [node.pop("const")]


def _rewrite_exclusive(node: dict[str, Any]) -> None:
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(node.get(exclusive), int | float) and not isinstance(node[exclusive], bool):
            node[bound], node[exclusive] = node[exclusive], True


def _rewrite_examples(node: dict[str, Any]) -> None:
    if isinstance(node.get("examples"), list):
        node["example"] = node.pop("examples")[0]
