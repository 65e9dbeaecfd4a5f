import json
import logging
from io import BytesIO
from pathlib import Path

import httpx
import pydicom
import pytest

from tests.app.serving import Served, serving
from tests.bundles import write_made_bundle
from tests.factories import chest, make_dicom, make_png

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
def radiograph() -> bytes:
    """A drawn chest with the identifiers that a result refers to."""
    return make_dicom(chest(), StudyInstanceUID="1.2.3.4", SeriesInstanceUID="1.2.3.5")


async def ask(
    served: Served, data: bytes, parameters: dict[str, str], headers: dict[str, str] | None = None
) -> httpx.Response:
    return await served.client.post(
        "/predict/dicom", content=data, params=parameters, headers=headers
    )


async def test_a_report_says_what_predict_says(store: Path, radiograph: bytes) -> None:
    prediction_request = {"tta": "true", "operating_point": "screen", "prevalence": "0.05"}
    async with serving(store) as served:
        response = await ask(served, radiograph, {"result": "sr", **prediction_request})
        answer = (
            await served.client.post("/predict", content=radiograph, params=prediction_request)
        ).json()

    assert (response.status_code, response.headers["content-type"]) == (200, "application/dicom")
    report = pydicom.dcmread(BytesIO(response.content))
    group = report.ContentSequence[-1].ContentSequence[0]
    certainty, threshold = (item for item in group.ContentSequence if item.ValueType == "NUM")
    assert certainty.MeasuredValueSequence[0].FloatingPointValue / 100 == pytest.approx(
        answer["probability"], abs=1e-6
    )
    assert threshold.MeasuredValueSequence[0].FloatingPointValue / 100 == pytest.approx(
        answer["threshold"], rel=1e-12
    )


async def test_a_capture_comes_from_a_form_too(store: Path, radiograph: bytes) -> None:
    async with serving(store) as served:
        response = await served.client.post(
            "/predict/dicom", params={"result": "sc"}, files={"file": radiograph}
        )
    assert (
        pydicom.dcmread(BytesIO(response.content)).SOPClassUID
        == pydicom.uid.SecondaryCaptureImageStorage
    )


@pytest.mark.parametrize(
    ("data", "parameters", "code"),
    [
        (make_png(chest(64, 64)), {"result": "sr"}, "unsupported_format"),
        (make_dicom(chest(64, 64)), {"result": "sr"}, "corrupt_image"),  # names no study
        (make_dicom(chest(64, 64), BodyPartExamined="HIP"), {"result": "sr"}, "not_a_chest"),
        (make_dicom(chest(64, 64)), {}, "malformed_request"),
        (make_dicom(chest(64, 64)), {"result": "pdf"}, "malformed_request"),
        (make_dicom(chest(64, 64)), {"result": "sc", "heatmap": "true"}, "malformed_request"),
    ],
)
async def test_what_can_have_no_result_is_a_problem(
    store: Path, data: bytes, parameters: dict[str, str], code: str
) -> None:
    async with serving(store) as served:
        response = await ask(served, data, parameters)
    assert response.json()["code"] == code


async def test_a_client_that_reads_no_dicom_is_told_so(store: Path, radiograph: bytes) -> None:
    async with serving(store) as served:
        refused = await ask(served, radiograph, {"result": "sr"}, {"accept": "application/json"})
        taken = await ask(served, radiograph, {"result": "sr"}, {"accept": "application/dicom"})
    assert (refused.status_code, taken.status_code) == (406, 200)


async def test_the_patient_is_in_the_object_and_in_no_log(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    radiograph = make_dicom(
        chest(),
        PatientName="lowercase only",
        StudyInstanceUID="1.2.3.4",
        SeriesInstanceUID="1.2.3.5",
    )
    with caplog.at_level(logging.DEBUG):
        async with serving(store) as served:
            responses = [await ask(served, radiograph, {"result": kind}) for kind in ("sr", "sc")]
    assert all(b"lowercase only" in response.content for response in responses)
    said = "".join(json.dumps(vars(record), default=str) for record in caplog.records)
    assert not [word for word in ("lowercase", "MARKED-ID", "1.2.3.4") if word in said]


async def test_a_prevalence_moves_probability_and_threshold_and_no_label(
    store: Path, radiograph: bytes
) -> None:
    async with serving(store) as served:
        plain, rare = [
            (
                await served.client.post("/predict", content=radiograph, params=prediction_request)
            ).json()
            for prediction_request in (dict[str, str](), {"prevalence": "0.01"})
        ]
        described = (await served.client.get("/models/bright")).json()["current"]
    assert described["training_prevalence"] == pytest.approx(1 / 3)
    assert rare["probability"] < plain["probability"]
    assert rare["threshold"] < plain["threshold"]
    assert rare["label"] == plain["label"]


async def test_a_model_of_one_class_has_no_prevalence_to_shift_from(
    tmp_path: Path, radiograph: bytes
) -> None:
    data = {"name": "made", "licence": "none", "images": 3, "positives": 3, "person_groups": 3}
    write_made_bundle(
        tmp_path, "bright", 1, training_data={**data, "sha256": "0" * 64, "splits_sha256": "0" * 64}
    )
    async with serving(tmp_path) as served:
        response = await served.client.post(
            "/predict", content=radiograph, params={"prevalence": "0.1"}
        )
        assert (response.json()["code"], response.status_code) == ("malformed_request", 400)
        assert (await served.client.get("/models/bright")).json()["current"][
            "training_prevalence"
        ] is None
