"""Bodies, examples and problems for the OpenAPI document."""

from typing import Any

from app.api.open_inference_metadata import ErrorAnswer
from app.api.problems import PROBLEM_KINDS, PROBLEM_MEDIA_TYPE, make_problem
from app.api.upload import MULTIPART, RAW_TYPES

PREDICT_CODES = (
    "malformed_request", "unauthorized", "unknown_model", "not_acceptable", "slow_client",
    "too_large", "unsupported_format",
    "corrupt_image", "not_a_radiograph", "not_a_chest", "not_frontal", "decode_limit",
    "rate_limited", "inference_failed", "overloaded", "not_ready", "deadline_exceeded",
)  # fmt: skip
BATCH_CODES = (
    "malformed_request", "unauthorized", "unknown_model", "not_acceptable", "slow_client",
    "too_large", "unsupported_format",
    "rate_limited", "inference_failed", "overloaded", "not_ready", "deadline_exceeded",
)  # fmt: skip
PREVIEW_CODES = tuple(
    code for code in PREDICT_CODES if code not in ("unknown_model", "inference_failed")
)

_BINARY = {"type": "string", "format": "binary"}

_TENSOR_PARAMETERS = {
    "type": "object",
    "properties": {
        "binary_data": {"type": "boolean"},
        "binary_data_output": {"type": "boolean"},
        "binary_data_size": {"type": "integer", "minimum": 0},
    },
}
_INFER_INPUT = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string", "enum": ["file"]},
        "datatype": {"type": "string", "enum": ["BYTES"]},
        "shape": {"type": "array", "items": {"type": "integer"}, "description": "[1]"},
        "parameters": _TENSOR_PARAMETERS,
        "data": {
            "type": "array",
            "items": {"type": "string", "format": "byte"},
            "minItems": 1,
            "maxItems": 1,
            "description": "The file in base64; left out if it follows the JSON.",
        },
    },
}
_INFER_OUTPUT = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "enum": ["probability", "label", "logit", "answer"]},
        "parameters": _TENSOR_PARAMETERS,
    },
}
_INFER_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string", "maxLength": 128},
        "parameters": _TENSOR_PARAMETERS,
        "inputs": {"type": "array", "items": _INFER_INPUT, "minItems": 1, "maxItems": 1},
        "outputs": {"type": "array", "items": _INFER_OUTPUT},
    },
}
INFER_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _INFER_REQUEST},
            "application/octet-stream": {"schema": _BINARY},
        },
    }
}
"""The body of the Open Inference Protocol; as octets it is the JSON and what follows it."""


def problem_responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return problems by status, each code with an example."""
    responses: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        kind = PROBLEM_KINDS[code]
        response = responses.setdefault(kind.status, _problem_response(kind.status))
        response["description"] = ", ".join(
            filter(None, (response["description"], f"`{code}`: {kind.title}"))
        )
        response["content"][PROBLEM_MEDIA_TYPE]["examples"][code] = {"value": _example(code)}
    return responses


def infer_responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Document the errors of the Open Inference Protocol by status."""
    responses: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        kind = PROBLEM_KINDS[code]
        response = responses.setdefault(kind.status, {"model": ErrorAnswer, "description": ""})
        response["description"] = ", ".join(
            filter(None, (response["description"], f"`{code}`: {kind.title}"))
        )
    return responses


def _problem_response(status: int) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": "",
        "content": {
            PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}
        },
    }
    if status in (429, 503):
        response["headers"] = {
            "Retry-After": {"description": "Whole seconds to wait.", "schema": {"type": "integer"}}
        }
    return response


def body_of_one(*raw_types: str) -> dict[str, Any]:
    """Return the description of a body of one file, in a form or raw.

    If no type is named, all raw types are listed.
    """
    raw = {media_type: {"schema": _BINARY} for media_type in raw_types or RAW_TYPES}
    form = {
        "type": "object",
        "required": ["file"],
        "properties": {"file": _BINARY},
        "additionalProperties": False,
    }
    return {"requestBody": {"required": True, "content": {MULTIPART: {"schema": form}, **raw}}}


def body_of_several() -> dict[str, Any]:
    """Return the description of `/predict/batch`'s body: several files in a form."""
    files = {"type": "array", "items": _BINARY, "minItems": 1}
    form = {
        "type": "object",
        "required": ["files"],
        "properties": {"files": files},
        "additionalProperties": False,
    }
    return {"requestBody": {"required": True, "content": {MULTIPART: {"schema": form}}}}


def _example(code: str) -> dict[str, Any]:
    return make_problem(
        code, "In words, for people.", request_id="8f14e45fceea467a9b6d"
    ).model_dump()


PREDICTION_EXAMPLE: dict[str, Any] = {
    "request_id": "8f14e45fceea467a9b6d",
    "model": {
        "name": "pneumothorax", "version": 2,
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "engine": "onnxruntime-cpu", "precision": "fp32",
    },
    "finding": "pneumothorax", "probability": 0.83, "label": "pneumothorax", "threshold": 0.41,
    "operating_point": "balanced",
    "metadata": {
        "age_years": 58.0, "sex": "M", "view_position": "PA",
        "source": {"age_years": "PatientAge", "sex": "PatientSex", "view_position": "ViewPosition"},
    },
    "tta": {"views": 4, "spread": 0.02},
    "novelty": {"score": 3.1, "limit": 9.9, "is_novel": False},
    "warnings": [{"code": "outside_age_scope", "detail": "The model was made for patients from 18 "
                                                         "to 95 years."}],
    "processing": {
        "format": "dicom", "transfer_syntax": "1.2.840.10008.1.2.4.50", "rows": 1024,
        "columns": 1024,
        "inverted": False, "intensity": "identity", "orientation": "as_stored",
        "preprocess": "1",
    },
    "heatmap": None,
    "timings_ms": {"decode": 3.1, "queue": 0.4, "run": 6.8, "total": 11.2},
}  # fmt: skip
"""A whole answer of `/predict`."""
