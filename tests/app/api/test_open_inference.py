import base64
import json
import struct
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app.api.open_inference import Inference
from app.api.open_inference_body import LONG_BYTES
from app.api.routes.open_inference import read_inference
from tests.app.server.conversation import connected
from tests.app.serving import Served, listening, serving
from tests.factories import make_png

pytestmark = pytest.mark.anyio

INFER = "/v2/models/bright/infer"
OUTPUTS = ["probability", "label", "logit", "answer"]


def json_request(file: bytes, **changes: Any) -> dict[str, Any]:
    data = [base64.b64encode(file).decode()]
    tensor = {"name": "file", "shape": [1], "datatype": "BYTES", "data": data, **changes}
    return {"id": "one", "inputs": [tensor]}


def binary_request(file: bytes, **more: Any) -> tuple[bytes, dict[str, str]]:
    element = struct.pack("<I", len(file)) + file
    tensor = {
        "name": "file",
        "shape": [1],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(element)},
    }
    head = json.dumps({"inputs": [tensor], **more}).encode()
    return head + element, {"inference-header-content-length": str(len(head))}


def read_binary(response: httpx.Response) -> dict[str, Any]:
    """The outputs of a binary answer: FP32 as floats, BYTES as bytes."""
    length = int(response.headers["inference-header-content-length"])
    outputs, rest = json.loads(response.content[:length])["outputs"], response.content[length:]
    values: dict[str, Any] = {}
    for output in outputs:
        size = output["parameters"]["binary_data_size"]
        raw, rest = rest[:size], rest[size:]
        is_text = output["datatype"] == "BYTES"
        values[output["name"]] = raw[4:] if is_text else np.frombuffer(raw, np.float32)[0]
    assert rest == b""
    return values


async def predict(served: Served, file: bytes, **query: str) -> dict[str, Any]:
    response = await served.client.post("/predict", files={"file": file}, params=query)
    return dict(response.json())


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two answers of `/predict` say the same; the request and its times are its own."""
    own = {"request_id", "timings_ms"}
    return {name: one[name] for name in one.keys() - own} == {
        name: other[name] for name in other.keys() - own
    }


async def test_an_answer_in_json_is_that_of_predict(served: Served, dicom: bytes) -> None:
    wanted = await predict(served, dicom)
    response = await served.client.post(INFER, json=json_request(dicom))

    answer = response.json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("bright", "1", "one")
    values = {output["name"]: output["data"][0] for output in answer["outputs"]}
    assert list(values) == OUTPUTS
    assert values["probability"] == wanted["probability"]
    assert values["label"] == wanted["label"]
    assert 1 / (1 + np.exp(-values["logit"])) == pytest.approx(wanted["probability"], abs=1e-6)
    assert same(json.loads(values["answer"]), wanted)


async def test_a_binary_answer_is_that_of_predict(served: Served, dicom: bytes) -> None:
    wanted = await predict(served, dicom)
    body, headers = binary_request(dicom, parameters={"binary_data_output": True})
    response = await served.client.post(INFER, content=body, headers=headers)

    values = read_binary(response)
    assert list(values) == OUTPUTS
    assert values["probability"] == np.float32(wanted["probability"])
    assert values["label"].decode() == wanted["label"]
    assert same(json.loads(values["answer"]), wanted)


async def test_only_the_outputs_that_are_asked_for_are_given(served: Served, png: bytes) -> None:
    request = {
        **json_request(png),
        "outputs": [{"name": "label", "parameters": {"binary_data": True}}],
    }
    response = await served.client.post(INFER, json=request)

    assert list(read_binary(response)) == ["label"]


async def test_the_query_asks_as_that_of_predict_does(served: Served, png: bytes) -> None:
    query = {"tta": "true", "operating_point": "screen", "age_years": "40"}
    wanted = await predict(served, png, **query)
    response = await served.client.post(INFER, json=json_request(png), params=query)

    assert same(json.loads(response.json()["outputs"][3]["data"][0]), wanted)


@pytest.mark.parametrize("path", ["", "/health/live", "/health/ready", "/models/bright/ready"])
async def test_a_sound_server_says_so(served: Served, path: str) -> None:
    response = await served.client.get(f"/v2{path}")

    assert response.status_code == 200
    assert "error" not in response.json()


async def test_a_model_says_what_it_takes_and_gives(served: Served) -> None:
    of_model = (await served.client.get("/v2/models/bright")).json()
    of_version = (await served.client.get("/v2/models/bright/versions/1")).json()

    assert of_version == of_model
    assert (of_model["name"], of_model["versions"]) == ("bright", ["1"])
    assert of_model["inputs"] == [{"name": "file", "datatype": "BYTES", "shape": [1]}]
    assert [output["name"] for output in of_model["outputs"]] == OUTPUTS


@pytest.mark.parametrize(
    "path",
    ["/models/none", "/models/none/ready", "/models/bright/versions/2/ready", "/nothing"],
)
async def test_what_is_not_there_is_404_in_the_protocols_form(served: Served, path: str) -> None:
    response = await served.client.get(f"/v2{path}")

    assert response.status_code == 404
    assert set(response.json()) == {"error"}


async def test_another_version_than_the_current_one_does_not_answer(
    served: Served, png: bytes
) -> None:
    right = await served.client.post("/v2/models/bright/versions/1/infer", json=json_request(png))
    wrong = await served.client.post("/v2/models/bright/versions/2/infer", json=json_request(png))

    assert right.status_code == 200
    assert wrong.status_code == 404


async def test_a_bad_file_has_the_status_and_code_of_predict(served: Served) -> None:
    response = await served.client.post(INFER, json=json_request(b"GIF89a"))

    assert response.status_code == 415
    assert response.json()["error"].startswith("unsupported_format: ")


BAD_REQUESTS = {
    "no JSON": (b"{", {}),
    "no input": (b'{"inputs": []}', {}),
    "another input": (json.dumps(json_request(b"x", name="image")).encode(), {}),
    "another datatype": (json.dumps(json_request(b"x", datatype="FP32")).encode(), {}),
    "another shape": (json.dumps(json_request(b"x", shape=[2])).encode(), {}),
    "no base64": (json.dumps(json_request(b"", data=["%%"])).encode(), {}),
    "two elements": (json.dumps(json_request(b"", data=["", ""])).encode(), {}),
    "neither way": (json.dumps(json_request(b"", data=None)).encode(), {}),
    "a length that is none": (b"{}", {"inference-header-content-length": "-1"}),
    "a length of thousands of digits": (b"{}", {"inference-header-content-length": "1" * 5000}),
    "a length over the body": (b"{}", {"inference-header-content-length": "3"}),
    "too much behind": (binary_request(b"x")[0] + b"y", binary_request(b"x")[1]),
    "too little behind": (binary_request(b"x")[0][:-1], binary_request(b"x")[1]),
    "unknown output": (
        json.dumps({**json_request(b"x"), "outputs": [{"name": "cam"}]}).encode(),
        {},
    ),
    "an empty body": (b"", {}),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
async def test_a_request_that_breaks_the_protocol_is_400(served: Served, name: str) -> None:
    body, headers = BAD_REQUESTS[name]
    response = await served.client.post(INFER, content=body, headers=headers)

    assert response.status_code == 400
    assert response.json()["error"].startswith("malformed_request: ")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            b'{"inputs":[],"outputs":[' + b"1," * 200_000 + b"1]}", id="a list of numbers"
        ),
        pytest.param(b'{"inputs":[' + b"{}," * 200_000 + b"{}]}", id="a list of objects"),
        pytest.param(b'{"inputs":' + b"[" * 200_000, id="lists in lists"),
        pytest.param(
            b'{"parameters":{' + b",".join(b'"%d":1' % key for key in range(200_000)) + b"}}",
            id="an object with many members",
        ),
    ],
)
async def test_a_json_of_many_parts_is_refused_before_it_is_parsed(
    served: Served, body: bytes
) -> None:
    """Parsing held the event loop for a minute, and took a kilobyte for each byte."""
    response = await served.client.post(INFER, content=body)

    assert response.status_code == 400
    assert response.json()["error"] == (
        "malformed_request: The JSON has more parts than a request needs."
    )


def large_request(text: bytes) -> bytes:
    """A request whose file is a text that is cut out of the JSON."""
    assert len(text) > LONG_BYTES
    head = (
        b'{"id": "one", "inputs": [{"name": "file", "shape": [1], "datatype": "BYTES", "data": ["'
    )
    return head + text + b'"]}], "outputs": [{"name": "probability"}]}'


@pytest.fixture(scope="module")
def large_png() -> bytes:
    """A PNG whose base64 has each letter, and is longer than what is parsed with the JSON."""
    random = np.random.default_rng(0)
    return make_png(random.integers(0, 256, (500, 600), np.uint8))


@pytest.mark.parametrize(
    "escapes", [{}, {"/": "\\/"}, {"+": "\\u002B"}, {"/": "\\/", "+": "\\u002b"}], ids=repr
)
async def test_a_large_file_is_read_from_json_however_its_letters_are_escaped(
    served: Served, large_png: bytes, escapes: dict[str, str]
) -> None:
    text = base64.b64encode(large_png).decode()
    for letter, escape in escapes.items():
        assert letter in text
        text = text.replace(letter, escape)
    wanted = await predict(served, large_png)
    response = await served.client.post(INFER, content=large_request(text.encode()))

    assert response.json()["outputs"][0]["data"][0] == wanted["probability"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"A" * 2**20 + b"%", id="another letter"),
        pytest.param(b"A" * (2**18 - 4) + b"AA==" + b"A" * 2**18, id="more behind its end"),
        pytest.param(b"A" * (2**20 + 1), id="a letter too many"),
        pytest.param(b"\\u0041" * 2**18, id="letters that need no escape"),
    ],
)
async def test_a_large_text_that_is_no_base64_is_refused(served: Served, text: bytes) -> None:
    response = await served.client.post(INFER, content=large_request(text))

    assert response.json() == {
        "error": "malformed_request: inputs.0.data: must be the file in base64"
    }


async def test_a_large_file_is_read_beside_the_event_loop(served: Served, large_png: bytes) -> None:
    text = base64.b64encode(large_png + bytes(8 * 2**20))
    body = large_request(text)
    started = time.thread_time()
    for _ in range(5):
        Inference.read(body, None)
    alone_s = time.thread_time() - started

    started = time.thread_time()
    for _ in range(5):
        await read_inference(body, None)
    loop_s = time.thread_time() - started

    assert loop_s < 0.2 * alone_s


@pytest.mark.parametrize("letter", [b" ", b"1", b"\\"], ids=repr)
async def test_json_is_short_besides_its_file(served: Served, letter: bytes) -> None:
    body = b'{"id": "' + letter * 2**21 + b'"}'
    response = await served.client.post(INFER, content=body)

    assert response.json() == {
        "error": "malformed_request: The JSON has more bytes than a request needs."
    }


async def test_json_of_many_parts_is_refused_before_it_has_arrived(store: Path) -> None:
    async with listening(store) as served, connected(served) as (reader, writer):
        head = f"POST {INFER} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 9000000\r\n\r\n"
        writer.write(head.encode() + b'{"outputs":[' + b"1," * 50_000)
        answer = await reader.readline()

    assert b" 400 " in answer


async def test_a_refusal_names_the_first_ten_faults(served: Served) -> None:
    body = json.dumps({"inputs": [], "outputs": [1] * 900}).encode()
    response = await served.client.post(INFER, content=body)

    assert response.json()["error"].count(";") == 9


async def test_an_elements_length_must_be_what_follows(served: Served) -> None:
    body, headers = binary_request(b"four")
    body = body.replace(struct.pack("<I", 4), struct.pack("<I", 2**31))
    response = await served.client.post(INFER, content=body, headers=headers)

    assert response.status_code == 400


async def test_a_file_over_the_limit_is_413_in_the_protocols_form(store: Path) -> None:
    body, headers = binary_request(bytes(2**17))
    async with serving(store, max_upload_bytes=2**16, max_batch_bytes=2**16) as served:
        response = await served.client.post(INFER, content=body, headers=headers)

    assert (response.status_code, response.json()["error"][:10]) == (413, "too_large:")


async def test_a_wrong_key_is_401_in_the_protocols_form_and_health_needs_none(
    store: Path, png: bytes
) -> None:
    async with serving(store, api_keys=f"ward:{'0' * 64}") as served:
        refused = await served.client.post(INFER, json=json_request(png))
        health = await served.client.get("/v2/health/ready")

    assert (refused.status_code, set(refused.json())) == (401, {"error"})
    assert health.status_code == 200


async def test_the_wrong_method_is_405_in_the_protocols_form(served: Served) -> None:
    response = await served.client.get(INFER)

    assert (response.status_code, set(response.json())) == (405, {"error"})
