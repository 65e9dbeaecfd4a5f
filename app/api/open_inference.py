"""The wire format of the Open Inference Protocol (KServe v2, REST) for one radiograph.

A request has one input `file`, BYTES [1]: one encoded radiograph. It comes in JSON as base64, or
behind the JSON as it is (binary tensor data extension). Outputs go back either way.

https://github.com/kserve/open-inference-protocol
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.api.open_inference_body import JSON_LENGTH_HEADER, SplitBody, split_body
from app.api.open_inference_metadata import OUTPUTS, Datatype, Tensor
from app.api.schemas import PredictionAnswer
from app.errors import MalformedRequest
from app.inference.prediction import Prediction

MAX_FAULTS = 10
"""Faults that a refusal names."""

_LENGTH = struct.Struct("<I")
"""Each element of a BYTES tensor follows its length."""


class Parameters(BaseModel):
    """The parameters of the protocol that matter here; others are passed over, as it asks."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    binary_data: bool = False
    binary_data_output: bool = False
    binary_data_size: int | None = Field(None, ge=0)


class RequestInput(BaseModel):
    """One input tensor of a request."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    name: Literal["file"] = Field(description="One encoded DICOM, PNG or JPEG radiograph.")
    datatype: Literal["BYTES"]
    shape: list[int] = Field(description="[1]")
    parameters: Parameters = Parameters()
    data: list[str] | None = Field(
        None, max_length=1, description="The file in base64; left out if it follows the JSON."
    )


class RequestOutput(BaseModel):
    """One output that is asked for."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    name: Literal["probability", "label", "logit", "answer"]
    parameters: Parameters = Parameters()


class InferRequest(BaseModel):
    """The JSON of a request."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    id: str | None = Field(None, max_length=128, description="Comes back in the answer.")
    parameters: Parameters = Parameters()
    inputs: list[RequestInput] = Field(min_length=1, max_length=1)
    outputs: list[RequestOutput] = Field([], description="All outputs if it is empty.")


class ResponseOutput(BaseModel):
    """One output tensor of an answer."""

    name: str
    datatype: Datatype
    shape: list[int]
    parameters: dict[str, int] | None = None
    data: list[float | str] | None = None


class InferResponse(BaseModel):
    """The JSON of an answer."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[ResponseOutput]


@dataclass(frozen=True, slots=True)
class Inference:
    """A request as it was read: the file, and how the answer is to be written."""

    request: InferRequest
    file: bytes

    @classmethod
    def read(cls, body: bytes, json_length: str | None) -> Self:
        """Read a request's body.

        Args:
            body: JSON, and behind it the binary tensor data if there is any.
            json_length: the header that says where the JSON ends; None if all of it is JSON.

        Raises:
            MalformedRequest: the body is not as the protocol says.
        """
        split = split_body(body, json_length)
        try:
            request = InferRequest.model_validate_json(split.json)
        except ValidationError as exc:
            found = exc.errors(include_url=False, include_input=False)[:MAX_FAULTS]
            faults = (_fault(fault["loc"], fault["msg"]) for fault in found)
            raise MalformedRequest("; ".join(faults)) from exc
        (tensor,) = request.inputs
        if tensor.shape != [1]:
            raise MalformedRequest("inputs.0.shape: must be [1]; send one file a request")
        return cls(request, _read_file(tensor, split))

    def respond(self, prediction: Prediction, request_id: str) -> "InferAnswer":
        """Write the answer as it was asked for."""
        answer = PredictionAnswer.write(prediction, request_id)
        finding, manifest = prediction.finding, prediction.version.manifest
        values: dict[str, float | str] = {
            "probability": finding.probability,
            "label": finding.label,
            "logit": finding.logit,
            "answer": answer.model_dump_json(),
        }
        outputs: list[ResponseOutput] = []
        binary: list[bytes] = []
        for tensor in self._wanted():
            output = ResponseOutput(**tensor.model_dump())
            if self._is_binary(tensor.name):
                binary.append(_to_binary(values[tensor.name]))
                output.parameters = {"binary_data_size": len(binary[-1])}
            else:
                output.data = [values[tensor.name]]
            outputs.append(output)
        response = InferResponse(
            model_name=manifest.model,
            model_version=str(manifest.version),
            id=self.request.id,
            outputs=outputs,
        )
        return InferAnswer(response.model_dump_json(exclude_none=True).encode(), binary)

    def _wanted(self) -> list[Tensor]:
        if not self.request.outputs:
            return OUTPUTS
        by_name = {tensor.name: tensor for tensor in OUTPUTS}
        names = dict.fromkeys(output.name for output in self.request.outputs)
        return [by_name[name] for name in names]

    def _is_binary(self, name: str) -> bool:
        if not self.request.outputs:
            return self.request.parameters.binary_data_output
        return any(
            output.parameters.binary_data for output in self.request.outputs if output.name == name
        )


@dataclass(frozen=True, slots=True)
class InferAnswer:
    """An answer, ready to be sent."""

    json: bytes
    binary: Sequence[bytes]

    @property
    def body(self) -> bytes:
        """Return the JSON, and the binary tensor data behind it."""
        return b"".join([self.json, *self.binary])

    @property
    def headers(self) -> dict[str, str]:
        """Return what the protocol wants said of the body."""
        if not self.binary:
            return {"content-type": "application/json"}
        return {
            "content-type": "application/octet-stream",
            JSON_LENGTH_HEADER: str(len(self.json)),
        }


def _read_file(tensor: RequestInput, split: SplitBody) -> bytes:
    """Return the one element of the input; raises `MalformedRequest`."""
    size = tensor.parameters.binary_data_size
    binary = split.binary
    if (size is None) == (tensor.data is None):
        raise MalformedRequest("inputs.0: needs either data or the parameter binary_data_size")
    if tensor.data is not None:
        if len(tensor.data) != 1 or binary:
            raise MalformedRequest("inputs.0.data: must hold one element, and nothing may follow")
        return split.file_of(tensor.data[0])
    if size != len(binary) or size < _LENGTH.size:
        raise MalformedRequest("inputs.0: binary_data_size is not what follows the JSON")
    (length,) = _LENGTH.unpack_from(binary)
    if length != size - _LENGTH.size:
        raise MalformedRequest("inputs.0: the element's length is not what follows it")
    return bytes(binary[_LENGTH.size :])


def _to_binary(value: float | str) -> bytes:
    if isinstance(value, float):
        return np.float32(value).tobytes()
    text = value.encode()
    return _LENGTH.pack(len(text)) + text


def _fault(members: tuple[int | str, ...], message: str) -> str:
    """Say what is wrong with a member, without its value."""
    place = ".".join(str(member)[:64] for member in members)
    return f"{place}: {message}" if place else message
