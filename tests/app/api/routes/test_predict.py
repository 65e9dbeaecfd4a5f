import asyncio
import base64
import json
import math
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit

from cxr.errors import GraphError
from cxr.metadata_features import COLUMNS
from tests.app.fake_graph import FakeGraph
from tests.app.serving import Served, serving, until
from tests.bundles import write_made_bundle
from tests.factories import chest, make_dicom, make_jpeg, make_png

pytestmark = pytest.mark.anyio

KEYS = {
    "request_id", "model", "finding", "probability", "label", "threshold", "operating_point",
    "metadata", "tta",
    "novelty", "warnings", "processing", "heatmap", "timings_ms",
}  # fmt: skip


async def predict(served: Served, data: bytes, **parameters: Any) -> dict[str, Any]:
    """Ask about one file; gives the answer of a success."""
    response = await served.client.post("/predict", files={"file": data}, params=parameters)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def grey_png(grey: int) -> bytes:
    return make_png(np.full((64, 64), grey, np.uint8))


def without_chance(answer: dict[str, Any]) -> dict[str, Any]:
    """Drop what differs between two answers about the same file."""
    return {
        name: value for name, value in answer.items() if name not in ("request_id", "timings_ms")
    }


async def test_an_answer_has_every_member_of_the_contract(store: Path, dicom: bytes) -> None:
    async with serving(store) as served:
        answer = await predict(served, dicom)

    assert answer.keys() == KEYS
    assert answer["model"].keys() == {"name", "version", "sha256", "engine", "precision"}
    assert answer["processing"].keys() == {
        "format", "transfer_syntax", "rows", "columns", "inverted", "intensity", "orientation",
        "preprocess",
    }  # fmt: skip
    assert answer["timings_ms"].keys() == {"decode", "queue", "run", "total"}
    assert answer["novelty"].keys() == {"score", "limit", "is_novel"}
    assert answer["metadata"] == {
        "age_years": 58.0, "sex": "M", "view_position": "PA",
        "source": {"age_years": "PatientAge", "sex": "PatientSex", "view_position": "ViewPosition"},
    }  # fmt: skip
    assert (answer["tta"], answer["heatmap"]) == (None, None)


async def test_a_raw_body_gets_the_same_answer_as_a_form(store: Path, dicom: bytes) -> None:
    async with serving(store) as served:
        of_form = await predict(served, dicom)
        for headers in (
            {},
            *(
                {"content-type": name}
                for name in ("application/dicom", "application/octet-stream", "image/png")
            ),
        ):
            response = await served.client.post("/predict", content=dicom, headers=headers)
            assert without_chance(response.json()) == without_chance(of_form)


async def test_the_label_is_positive_exactly_from_the_threshold_on(store: Path) -> None:
    async with serving(store) as served:
        answers = [await predict(served, grey_png(grey)) for grey in range(100, 160, 6)]

    assert {answer["label"] for answer in answers} == {"dark", "bright"}
    for answer in answers:
        assert (answer["label"] == "bright") == (answer["probability"] >= answer["threshold"])


async def test_the_operating_point_moves_the_threshold_and_not_the_probability(store: Path) -> None:
    async with serving(store) as served:
        usual = await predict(served, grey_png(110))
        screening = await predict(served, grey_png(110), operating_point="screen")

    assert (usual["operating_point"], usual["label"]) == ("balanced", "dark")
    assert (screening["operating_point"], screening["label"]) == ("screen", "bright")
    assert usual["probability"] == screening["probability"]


async def test_what_the_file_does_not_state_may_come_from_the_request(
    store: Path, png: bytes
) -> None:
    async with serving(store) as served:
        answer = await predict(served, png, age_years=63.5, view_position="AP")

    assert answer["metadata"] == {
        "age_years": 63.5, "sex": None, "view_position": "AP",
        "source": {"age_years": "request", "sex": None, "view_position": "request"},
    }  # fmt: skip


async def test_what_a_dicom_file_states_wins_over_the_request(store: Path, dicom: bytes) -> None:
    async with serving(store) as served:
        answer = await predict(served, dicom, age_years=5, sex="F", view_position="AP")

    assert answer["metadata"]["age_years"] == 58.0
    assert answer["metadata"]["source"]["sex"] == "PatientSex"


async def test_the_models_scope_is_held_against_what_is_known(store: Path, png: bytes) -> None:
    async with serving(store) as served:
        unknown = await predict(served, png)
        child = await predict(served, png, age_years=4, view_position="PA")

    assert {warning["code"] for warning in unknown["warnings"]} >= {"age_missing", "view_missing"}
    assert [warning["code"] for warning in child["warnings"]] == ["outside_age_scope"]


async def test_each_warning_is_given_once(store: Path) -> None:
    data = make_dicom(chest(64, 64), Modality="OT", BodyPartExamined=None)
    async with serving(store) as served:
        codes = [warning["code"] for warning in (await predict(served, data))["warnings"]]

    assert len(codes) == len(set(codes)) > 0


async def test_scope_may_be_told_to_warn_instead_of_refusing(store: Path) -> None:
    data = make_dicom(chest(64, 64), BodyPartExamined="FOOT")
    async with serving(store, scope="warn") as served:
        answer = await predict(served, data)

    assert "not_a_chest" in {warning["code"] for warning in answer["warnings"]}


async def test_tta_looks_at_the_policys_views(store: Path, png: bytes) -> None:
    async with serving(store) as served:
        answer = await predict(served, png, tta="1")
        plain = await predict(served, png, tta="false")

    assert answer["tta"]["views"] == 2
    assert answer["tta"]["spread"] >= 0
    assert plain["tta"] is None


async def test_a_heat_map_is_a_picture_in_the_radiographs_shape(store: Path) -> None:
    async with serving(store) as served:
        answer = await predict(served, make_jpeg(chest(300, 200)), heatmap="true")

    assert answer["heatmap"]["media_type"] == "image/png"
    picture = Image.open(BytesIO(base64.b64decode(answer["heatmap"]["data"], validate=True)))
    picture.load()
    assert (picture.size, picture.mode) == ((200, 300), "RGB")


@pytest.mark.parametrize("tta", ["false", "true"])
async def test_only_a_request_for_a_heat_map_draws_the_map(
    store: Path, graph: FakeGraph, tta: str
) -> None:
    async with serving(store, opener=graph.open) as served:
        graph.drew_maps.clear()
        plain = await predict(served, grey_png(90), tta=tta)
        num_plain = len(graph.drew_maps)
        drawn = await predict(served, grey_png(90), tta=tta, heatmap="true")

    assert not any(graph.drew_maps[:num_plain])
    assert all(graph.drew_maps[num_plain:])
    assert plain["probability"] == drawn["probability"]


async def test_asking_for_a_heat_map_does_not_change_the_probability(store: Path) -> None:
    data = make_dicom(chest(1024, 1024), syntax=JPEGBaseline8Bit)
    async with serving(store) as served:
        plain, drawn = await predict(served, data), await predict(served, data, heatmap="1")

    assert plain["probability"] == drawn["probability"]


async def test_a_file_of_a_codec_that_runs_in_a_worker_is_answered(store: Path) -> None:
    pixels = chest(128, 128)
    async with serving(store) as served:
        answer = await predict(served, make_dicom(pixels, syntax=JPEG2000Lossless))
        uncompressed = await predict(served, make_dicom(pixels))

    assert answer["processing"]["transfer_syntax"] == JPEG2000Lossless
    assert answer["probability"] == uncompressed["probability"]


async def test_another_model_answers_when_it_is_named(tmp_path: Path, png: bytes) -> None:
    write_made_bundle(tmp_path, "bright", 1)
    write_made_bundle(tmp_path, "other", 7)
    async with serving(tmp_path) as served:
        answer = await predict(served, png, model="other")

    assert (answer["model"]["name"], answer["model"]["version"]) == ("other", 7)


async def test_answers_under_load_are_those_given_alone(store: Path) -> None:
    files = [grey_png(grey) for grey in range(0, 256, 8)]
    async with serving(store) as served:
        alone = [(await predict(served, file))["probability"] for file in files]
        together = await asyncio.gather(
            *(predict(served, file, tta=str(number % 2)) for number, file in enumerate(files))
        )

    np.testing.assert_allclose(
        [answer["probability"] for answer in together], alone, rtol=0, atol=1e-5
    )


async def test_a_bad_file_among_many_fails_alone(store: Path, graph: FakeGraph) -> None:
    def failure(batch_NHW: Any) -> None:
        if (batch_NHW == 13).all(axis=(1, 2)).any():
            raise GraphError("bad")

    async with serving(store, opener=graph.open) as served:
        graph.failure = failure
        files = [grey_png(13), b"no image", *(grey_png(grey) for grey in range(20, 40))]
        responses = await asyncio.gather(
            *(served.client.post("/predict", content=file) for file in files)
        )

    assert [response.status_code for response in responses] == [500, 415, *[200] * 20]


async def test_the_request_id_is_echoed_where_it_is_sane_and_made_where_it_is_not(
    store: Path, png: bytes
) -> None:
    async with serving(store) as served:
        for sent, is_kept in [
            (b"trace-42", True),
            (b"x" * 129, False),
            (b"a b", False),
            ("ünsafe".encode(), False),
        ]:
            response = await served.client.post(
                "/predict", content=png, headers={b"x-request-id": sent}
            )
            assert (response.headers["x-request-id"].encode() == sent) is is_kept
            assert response.json()["request_id"] == response.headers["x-request-id"]


async def test_json_is_answered_to_whoever_accepts_it(store: Path, png: bytes) -> None:
    async with serving(store) as served:
        for accept in ("application/json", "*/*", "text/html, application/*;q=0.1", ""):
            response = await served.client.post("/predict", content=png, headers={"accept": accept})
            assert response.status_code == 200


class TestBatch:
    async def test_results_keep_the_order_and_the_names_of_the_files(
        self, store: Path, png: bytes, dicom: bytes
    ) -> None:
        files = [("files", ("b.png", png)), ("files", ("a.dcm", dicom)), ("files", ("b.png", png))]
        async with serving(store) as served:
            results = await batch(served, files)

        assert [result["filename"] for result in results] == ["b.png", "a.dcm", "b.png"]
        assert [result["prediction"]["processing"]["format"] for result in results] == [
            "png",
            "dicom",
            "png",
        ]
        assert all(result.keys() == {"filename", "prediction"} for result in results)

    async def test_an_answer_in_a_batch_is_the_one_given_alone(
        self, store: Path, png: bytes, dicom: bytes
    ) -> None:
        async with serving(store) as served:
            results = await batch(
                served, [("files", png), ("files", dicom)], tta="true", heatmap="true"
            )
            alone = [
                await predict(served, file, tta="true", heatmap="true") for file in (png, dicom)
            ]

        for result, answer in zip(results, alone, strict=True):
            assert without_chance(result["prediction"]) == without_chance(answer)

    async def test_a_bad_file_fails_alone(self, store: Path, png: bytes) -> None:
        files = [("files", ("x", data)) for data in (png, b"", b"no image", b"\0" * 70_000, png)]
        async with serving(store, max_upload_bytes=60_000) as served:
            results = await batch(served, files)

        codes = [result.get("problem", {}).get("code") for result in results]
        assert codes == [None, "malformed_request", "unsupported_format", "too_large", None]
        assert all(
            result.keys() == {"filename", "problem"} for result in results if "problem" in result
        )

    async def test_each_file_is_admitted_alone(self, store: Path, png: bytes) -> None:
        async with serving(store, queue_capacity=2) as served:
            results = await batch(served, [("files", png)] * 5)

        codes = [result.get("problem", {}).get("code") for result in results]
        assert sorted(codes, key=str) == [None, None, "overloaded", "overloaded", "overloaded"]

    async def test_too_many_files_are_refused(self, store: Path, png: bytes) -> None:
        async with serving(store, max_batch_files=2) as served:
            response = await served.client.post("/predict/batch", files=[("files", png)] * 3)

        assert (response.status_code, response.json()["code"]) == (400, "malformed_request")

    async def test_too_long_a_body_is_refused(self, store: Path, png: bytes) -> None:
        async with serving(store, max_batch_bytes=1024) as served:
            response = await served.client.post(
                "/predict/batch", files=[("files", b"\0" * 40_000)] * 3
            )

        assert response.json()["code"] == "too_large"

    async def test_a_body_without_files_is_refused(self, store: Path) -> None:
        async with serving(store) as served:
            response = await served.client.post("/predict/batch", files={"file": b"x"})

        assert response.json()["code"] == "malformed_request"


async def batch(served: Served, files: Any, **parameters: Any) -> list[dict[str, Any]]:
    response = await served.client.post("/predict/batch", files=files, params=parameters)
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = response.json()["results"]
    return results


async def test_checks_come_in_their_order(store: Path, graph: FakeGraph) -> None:
    """Parameters, model, admission, size, format, scope, content: the earliest fault is the one
    that is told."""
    bad_parameter, bad_model = {"tta": "maybe"}, {"model": "none"}
    huge = b"\0" * 2_000_000
    foot = make_dicom(chest(64, 64), BodyPartExamined="FOOT")[:-100]
    steps = [
        ({**bad_parameter, **bad_model}, huge, "malformed_request"),
        (bad_model, huge, "unknown_model"),
        ({"operating_point": "none", "tta": "1"}, huge, "malformed_request"),
        ({"tta": "1"}, huge, "malformed_request"),
        ({}, huge, "too_large"),
        ({}, b"\0" * 500, "unsupported_format"),
        ({}, foot, "not_a_chest"),
    ]
    async with serving(
        store, opener=graph.open, max_upload_bytes=1_000_000, queue_capacity=1
    ) as served:
        for parameters, data, code in steps:
            headers = {"content-type": "text/plain"} if code == "too_large" else {}
            response = await served.client.post(
                "/predict", content=data, params=parameters, headers=headers
            )
            assert response.json()["code"] == code

        graph.gate.clear()
        running = asyncio.create_task(served.client.post("/predict", content=make_png(chest())))
        await until(lambda: served.classifier.admission.num_in_flight == 1)
        response = await served.client.post("/predict", content=huge)
        graph.gate.set()
        await running

    assert response.json()["code"] == "overloaded"


async def test_a_refusal_before_the_body_does_not_read_it(store: Path) -> None:
    chunks_sent = 0

    async def body() -> Any:
        nonlocal chunks_sent
        for _ in range(100):
            chunks_sent += 1
            yield b"x" * 1000

    async with serving(store) as served:
        response = await served.client.post("/predict", content=body(), params={"model": "none"})

    assert response.json()["code"] == "unknown_model"
    assert chunks_sent == 0


def test_an_answer_that_is_documented_as_an_example_is_a_valid_one() -> None:
    from app.api.routes.openapi_texts import PREDICTION_EXAMPLE
    from app.api.schemas import PredictionAnswer

    answer = PredictionAnswer.model_validate(PREDICTION_EXAMPLE)

    assert json.loads(answer.model_dump_json()) == PREDICTION_EXAMPLE


@pytest.mark.parametrize("max_batch", [1, 4], ids=["at once", "in batches"])
@pytest.mark.parametrize("tta", ["false", "true"], ids=["plain", "views"])
async def test_a_model_that_reads_age_sex_and_view_is_told_what_is_known(
    tmp_path: Path, dicom: bytes, max_batch: int, tta: str
) -> None:
    write_made_bundle(tmp_path, "bright", 1, metadata=COLUMNS)
    grey = 10 * 128 / 255 - 5
    told = {"age_years": 70, "sex": "F", "view_position": "AP"}
    async with serving(tmp_path, max_batch=max_batch) as served:
        unknown = await predict(served, grey_png(128), tta=tta)
        stated = await predict(served, grey_png(128), tta=tta, **told)
        of_file, contradicted = (
            await predict(served, dicom, tta=tta),
            await predict(served, dicom, tta=tta, **told),
        )

    assert unknown["probability"] == pytest.approx(sigmoid(grey), abs=1e-4)
    assert stated["probability"] == pytest.approx(sigmoid(grey + 1.0 + 0.5 - 2.0 - 0.25), abs=1e-4)
    assert of_file["probability"] == contradicted["probability"]  # a DICOM's own values win


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))
