"""Triton's own client against the running service."""

import base64
import json
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import tritonclient.http as triton

from cxr.phantom import phantom_dicom
from tests.server import Server

MODEL = "pneumothorax"
OUTPUTS = ("probability", "label", "logit", "answer")


@pytest.fixture(scope="module")
def radiograph() -> bytes:
    """A made chest."""
    return phantom_dicom(512)


@pytest.fixture
def triton_client(server: Server) -> Iterator[triton.InferenceServerClient]:
    """Triton's client of the service."""
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        yield client


def tensor(file: bytes, *, binary: bool) -> triton.InferInput:
    """The input, as bytes or, in JSON, as base64."""
    made = triton.InferInput("file", [1], "BYTES")
    element = file if binary else base64.b64encode(file)
    made.set_data_from_numpy(np.array([element], dtype=np.object_), binary_data=binary)
    return made


def text(result: triton.InferResult, name: str) -> str:
    """A BYTES output; the client gives bytes or text, as it came."""
    value = result.as_numpy(name)[0]
    return value.decode() if isinstance(value, bytes) else str(value)


@pytest.mark.parametrize("asks", ["binary", "json"])
@pytest.mark.parametrize("sends", ["binary", "json"])
def test_tritons_client_gets_the_answer_of_predict(
    triton_client: triton.InferenceServerClient,
    client: httpx.Client,
    radiograph: bytes,
    sends: str,
    asks: str,
) -> None:
    wanted = client.post("/predict", files={"file": radiograph}).json()
    outputs = [triton.InferRequestedOutput(name, binary_data=asks == "binary") for name in OUTPUTS]

    result = triton_client.infer(
        MODEL, [tensor(radiograph, binary=sends == "binary")], outputs=outputs, request_id="q1"
    )

    assert result.get_response()["id"] == "q1"
    assert result.as_numpy("probability")[0] == np.float32(wanted["probability"])
    assert text(result, "label") == wanted["label"]
    assert json.loads(text(result, "answer"))["probability"] == wanted["probability"]


def test_tritons_client_is_told_what_is_there(triton_client: triton.InferenceServerClient) -> None:
    metadata = triton_client.get_model_metadata(MODEL)
    (version,) = metadata["versions"]

    assert triton_client.is_server_live()
    assert triton_client.is_server_ready()
    assert triton_client.is_model_ready(MODEL, version)
    assert not triton_client.is_model_ready(MODEL, "999")
    assert not triton_client.is_model_ready("none")
    assert [output["name"] for output in metadata["outputs"]] == list(OUTPUTS)


@pytest.mark.parametrize(
    ("model", "version", "file", "status", "code"),
    [
        ("none", "", b"x", "404", "unknown_model"),
        (MODEL, "999", b"x", "404", "unknown_model"),
        (MODEL, "", b"no radiograph", "415", "unsupported_format"),
    ],
)
def test_tritons_client_reads_our_errors(  # noqa: PLR0913, PLR0917 - one case, spread out
    triton_client: triton.InferenceServerClient,
    model: str,
    version: str,
    file: bytes,
    status: str,
    code: str,
) -> None:
    with pytest.raises(triton.InferenceServerException) as caught:
        triton_client.infer(model, [tensor(file, binary=True)], model_version=version)

    assert caught.value.status() == status
    assert caught.value.message().startswith(f"{code}: ")
