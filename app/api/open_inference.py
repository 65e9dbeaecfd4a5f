"""The wire format of the Open Inference Protocol (KServe v2, REST) for one radiograph.

A request has one input `file`, BYTES [1]: one encoded radiograph. It comes in JSON as base64, or
behind the JSON as it is (binary tensor data extension). Outputs go back either way.

https://github.com/kserve/open-inference-protocol
"""

import base64
import binascii
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.api.open_inference_metadata import OUTPUTS, Datatype, Tensor
from app.api.schemas import PredictionAnswer
from app.errors import MalformedRequest
from app.inference.prediction import Prediction

JSON_LENGTH_HEADER = "inference-header-content-length"
MAX_JSON_BYTES = 16 * 2**20
"""Base64 of a larger file would hold the event loop up; the binary extension takes any size."""

MAX_JSON_PARTS = 1000
"""Values in the JSON. A request has about twenty; each costs some microseconds and some hundred
bytes of memory on the event loop, and one more if it is wrong."""

MAX_FAULTS = 10
"""Faults that a refusal names."""

_COUNTED_BYTES = 64 * 1024
"""Bytes whose parts are counted at once, so that a body of many parts is refused by its start."""

_BEFORE_A_VALUE = (b",", b"[", b"{")
"""One of these stands before each value of a list and each member of an object; base64 has none."""

_LENGTH_TEXT = re.compile(r"\d{1,20}", re.ASCII)
"""A length in a header. Python makes no number of thousands of digits."""

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
        end = _json_end(json_length, len(body))
        if end > MAX_JSON_BYTES:
            raise MalformedRequest("A large file belongs behind the JSON (binary tensor data).")
        _check_parts(body, end)
        try:
            request = InferRequest.model_validate_json(body[:end])
        except ValidationError as exc:
            found = exc.errors(include_url=False, include_input=False)[:MAX_FAULTS]
            faults = (_fault(fault["loc"], fault["msg"]) for fault in found)
            raise MalformedRequest("; ".join(faults)) from exc
        (tensor,) = request.inputs
        if tensor.shape != [1]:
            raise MalformedRequest("inputs.0.shape: must be [1]; send one file a request")
        return cls(request, _read_file(tensor, body[end:]))

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


def _check_parts(body: bytes, end: int) -> None:
    """Refuse JSON of more values and members than any request needs."""
    num_parts = 0
    for start in range(0, end, _COUNTED_BYTES):
        stop = min(start + _COUNTED_BYTES, end)
        num_parts += sum(body.count(mark, start, stop) for mark in _BEFORE_A_VALUE)
        if num_parts > MAX_JSON_PARTS:
            raise MalformedRequest("The JSON has more parts than a request needs.")


def _json_end(json_length: str | None, num_bytes: int) -> int:
    if json_length is None:
        return num_bytes
    if not _LENGTH_TEXT.fullmatch(json_length) or int(json_length) > num_bytes:
        raise MalformedRequest(f"{JSON_LENGTH_HEADER}: must be a length within the body")
    return int(json_length)


def _read_file(tensor: RequestInput, binary: bytes) -> bytes:
    """Return the one element of the input; raises `MalformedRequest`."""
    size = tensor.parameters.binary_data_size
    if (size is None) == (tensor.data is None):
        raise MalformedRequest("inputs.0: needs either data or the parameter binary_data_size")
    if tensor.data is not None:
        if len(tensor.data) != 1 or binary:
            raise MalformedRequest("inputs.0.data: must hold one element, and nothing may follow")
        try:
            return base64.b64decode(tensor.data[0], validate=True)
        except (binascii.Error, ValueError) as exc:
            raise MalformedRequest("inputs.0.data: must be the file in base64") from exc
    if size != len(binary) or size < _LENGTH.size:
        raise MalformedRequest("inputs.0: binary_data_size is not what follows the JSON")
    (length,) = _LENGTH.unpack_from(binary)
    if length != size - _LENGTH.size:
        raise MalformedRequest("inputs.0: the element's length is not what follows it")
    return binary[_LENGTH.size :]


def _to_binary(value: float | str) -> bytes:
    if isinstance(value, float):
        return np.float32(value).tobytes()
    text = value.encode()
    return _LENGTH.pack(len(text)) + text


def _fault(members: tuple[int | str, ...], message: str) -> str:
    """Say what is wrong with a member, without its value."""
    place = ".".join(str(member)[:64] for member in members)
    return f"{place}: {message}" if place else message
