import logging
import shutil
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pydicom
import pytest
from highdicom.sr import Comprehensive3DSR
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from app.dicom_results import ResultKind, require_dicom, write_result
from app.dicom_results.secondary_capture import draw_capture
from app.inference.decoders import HEATMAP_SIDE, Preparation
from app.inference.prediction import Prediction, Timings, merge_metadata
from app.inference.request import PredictionRequest
from app.models.execution_plan import ExecutionPlan
from app.models.store import ServedVersion
from cxr.bundle import read_bundle
from cxr.decode import DecodeLimits
from cxr.decode_and_preprocess import prepare
from cxr.errors import CorruptImage, UnsupportedFormat
from cxr.graph import open_graph
from cxr.heatmap import draw_heatmap
from cxr.interpret import interpret, scope_warnings
from cxr.prevalence_shift import PrevalenceShift
from cxr.tta import PLAIN, POLICIES, make_views
from tests.factories import chest, make_dicom, make_jpeg, make_png, saved

UIDS: dict[str, Any] = {"StudyInstanceUID": "1.2.3.4", "SeriesInstanceUID": "1.2.3.5"}
MAX_BYTES = 2**26


@pytest.fixture(scope="module")
def version(store: Path) -> ServedVersion:
    """The made model, opened as the service opens it."""
    bundle = read_bundle(store / "bright" / "1")
    return ServedVersion(bundle, open_graph(bundle), ExecutionPlan(1, 1, 1, seconds_per_image=0.1))


@pytest.fixture(scope="module")
def radiograph() -> bytes:
    """A drawn chest with the identifiers that a result refers to."""
    return make_dicom(chest(), **UIDS)


def predict(
    version: ServedVersion,
    data: bytes,
    request: PredictionRequest | None = None,
    shift: PrevalenceShift | None = None,
) -> Prediction:
    """Answer one file by the parts that the service uses, in one thread."""
    from PIL import Image

    request, manifest = request or PredictionRequest(), version.manifest
    prepared = prepare(
        data, Preparation(manifest.preprocess, DecodeLimits(), "refuse", HEATMAP_SIDE)
    )
    views = POLICIES[manifest.tta_policy] if request.tta else (PLAIN,)
    outputs = version.graph.run(make_views(prepared.image_HW, views))
    finding = interpret(outputs, manifest, operating_point=request.operating_point, shift=shift)
    metadata = merge_metadata(prepared.metadata, request.stated)
    assert prepared.preview_HW is not None
    return Prediction(
        version=version,
        finding=finding,
        metadata=metadata,
        processing=prepared.processing,
        warnings=(*prepared.warnings, *scope_warnings(metadata, manifest.scope), *finding.warnings),
        heatmap_png=saved(
            Image.fromarray(draw_heatmap(finding.cam_hw, prepared.preview_HW)), "PNG"
        ),
        timings_ms=Timings(0, 0, 0, 0),
    )


def write(kind: ResultKind, data: bytes, prediction: Prediction) -> Dataset:
    return pydicom.dcmread(
        BytesIO(write_result(kind, data, prediction, max_inflated_bytes=MAX_BYTES))
    )


def items(report: Dataset) -> list[tuple[str, Any]]:
    """Every content item of a report: the meaning of its name, and the item."""
    found = []

    def walk(item: Dataset) -> None:
        for child in item.get("ContentSequence", ()):
            name = (
                child.ConceptNameCodeSequence[0].CodeMeaning
                if "ConceptNameCodeSequence" in child
                else ""
            )
            found.append((name, child))
            walk(child)

    walk(report)
    return found


def one(report: Dataset, name: str) -> Dataset:
    (item,) = (item for meaning, item in items(report) if meaning == name)
    assert isinstance(item, Dataset)
    return item


def percent(report: Dataset, name: str) -> float:
    return float(one(report, name).MeasuredValueSequence[0].FloatingPointValue)


def dciodvfy_errors(result: Dataset, folder: Path) -> list[str]:
    """What dicom3tools' validator calls an error."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("no dciodvfy on this machine")
    path = folder / "result.dcm"
    result.save_as(path)
    done = subprocess.run(
        ["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False, timeout=30
    )
    return [line for line in (done.stderr + done.stdout).splitlines() if line.startswith("Error")]


@pytest.mark.parametrize(
    ("stated", "shown"), [(["R", "F"], ["L", "F"]), (["L", "F"], ["L", "F"]), ("", [])]
)
def test_a_capture_states_the_orientation_that_it_shows(
    version: ServedVersion, stated: object, shown: list[str]
) -> None:
    data = make_dicom(chest(96, 96), **UIDS, PatientOrientation=stated)
    capture = write("sc", data, predict(version, data))
    assert list(capture.get("PatientOrientation") or []) == shown


def test_a_report_parses_back_to_the_answer(version: ServedVersion, radiograph: bytes) -> None:
    prediction = predict(version, radiograph, PredictionRequest(tta=True, operating_point="screen"))
    report = write("sr", radiograph, prediction)
    finding = prediction.finding

    assert percent(report, "Certainty of Finding") / 100 == pytest.approx(
        finding.probability, rel=1e-14
    )
    assert percent(report, "Smallest positive certainty") / 100 == pytest.approx(
        finding.threshold, rel=1e-14
    )
    assert one(report, "Presence").ConceptCodeSequence[0].CodeMeaning == (
        "Present" if finding.label == "bright" else "Absent"
    )
    assert one(report, "Algorithm Version").TextValue == "1"
    parameters = {item.TextValue for name, item in items(report) if name == "Algorithm Parameters"}
    assert f"sha256={version.bundle.sha256}" in parameters
    assert {
        "operating_point=screen",
        f"threshold={finding.threshold!r}",
        "tta_views=2",
    } <= parameters
    remarks = [item.TextValue for name, item in items(report) if name == "Comment"]
    assert remarks[0].startswith("NOT FOR DIAGNOSIS")
    assert (
        Comprehensive3DSR.from_dataset(report).content[0].name.meaning
        == "Imaging Measurement Report"
    )


@pytest.mark.parametrize(("grey", "presence"), [(20, "Absent"), (235, "Present")])
def test_presence_follows_the_label(version: ServedVersion, grey: int, presence: str) -> None:
    radiograph = make_dicom(np.full((64, 64), grey, np.uint8), **UIDS)
    assert (
        one(write("sr", radiograph, predict(version, radiograph)), "Presence")
        .ConceptCodeSequence[0]
        .CodeMeaning
        == presence
    )


def test_a_report_is_complete_but_preliminary_and_verified_by_nobody(
    version: ServedVersion, radiograph: bytes
) -> None:
    report = write("sr", radiograph, predict(version, radiograph))
    flags = (report.CompletionFlag, report.PreliminaryFlag, report.VerificationFlag)
    assert flags == ("COMPLETE", "PRELIMINARY", "UNVERIFIED")


@pytest.mark.parametrize("kind", ["sr", "sc"])
def test_a_result_lies_in_the_study_of_its_image_and_refers_to_it(
    version: ServedVersion, radiograph: bytes, kind: ResultKind
) -> None:
    source, result = (
        pydicom.dcmread(BytesIO(radiograph)),
        write(kind, radiograph, predict(version, radiograph)),
    )
    assert result.StudyInstanceUID == source.StudyInstanceUID
    assert result.SeriesInstanceUID != source.SeriesInstanceUID
    assert (result.PatientName, result.PatientID, result.PatientSex) == (
        "Marked^Name",
        "MARKED-ID",
        "F",
    )
    if kind == "sr":
        reference = one(result, "Source of Measurement").ReferencedSOPSequence[0]
        evidence = result.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
        assert evidence.SeriesInstanceUID == source.SeriesInstanceUID
    else:
        reference = result.SourceImageSequence[0]
    assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID


@pytest.mark.parametrize("kind", ["sr", "sc"])
@pytest.mark.parametrize(
    "header",
    [
        {},
        dict.fromkeys(("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge",
        "ViewPosition")),
        {"raw": {"041Y": b"62  "}},
        {"raw": {"041Y": b"413 "}},
        {"raw": {"19991231": b"31.12.99"}, "StudyDate": "19991231", "StudyTime": "101112.5"},
        {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "M\xfcller",
        "PatientOrientation": ["L", "F"]},
        {"SpecificCharacterSet": "ISO_IR 192",
        "PatientName": "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce", "Laterality": "R"},
        {"syntax": DeflatedExplicitVRLittleEndian, "LossyImageCompression": "01",
        "InstanceNumber": 7},
    ],
)  # fmt: skip
def test_results_are_valid_whatever_the_header_lacks(
    version: ServedVersion, kind: ResultKind, header: dict[str, Any], tmp_path: Path
) -> None:
    radiograph = make_dicom(chest(96, 96), **UIDS, **header)
    with pydicom.config.disable_value_validation():
        result = write(kind, radiograph, predict(version, radiograph))
    assert dciodvfy_errors(result, tmp_path) == []


@pytest.mark.parametrize(
    ("stated", "carried"),
    [(b"041Y", "041Y"), (b"006M", "006M"), (b"62  ", "062Y"), (b"413 ", None), (b"old ", None)],
)
def test_an_age_gets_its_unit_or_is_left_out(
    version: ServedVersion, stated: bytes, carried: str | None
) -> None:
    radiograph = make_dicom(chest(64, 64), raw={"041Y": stated}, **UIDS)
    with pydicom.config.disable_value_validation():
        assert write("sr", radiograph, predict(version, radiograph)).get("PatientAge") == carried


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "M\xfcller^J\xf6rg"),
        ("ISO_IR 144", "\u041b\u044e\u043a"),
        ("ISO_IR 192", "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce"),
    ],
)  # fmt: skip
def test_names_keep_their_letters(version: ServedVersion, charset: str, name: str) -> None:
    radiograph = make_dicom(chest(64, 64), SpecificCharacterSet=charset, PatientName=name, **UIDS)
    assert str(write("sr", radiograph, predict(version, radiograph)).PatientName) == name


def test_a_name_that_is_merely_unusual_is_carried_over_and_never_said(
    version: ServedVersion, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    radiograph = make_dicom(
        chest(64, 64), PatientName="84065b22-967f-497f", PatientID="SECRET-7", **UIDS
    )
    with caplog.at_level(logging.DEBUG):
        results = [
            write(kind, radiograph, predict(version, radiograph)) for kind in get_args(ResultKind)
        ]
    assert {str(result.PatientName) for result in results} == {"84065b22-967f-497f"}
    assert "84065b22" not in caplog.text
    assert "SECRET" not in caplog.text
    assert not [warning for warning in recwarn if "84065b22" in str(warning.message)]


@pytest.mark.parametrize("kind", ["sr", "sc"])
def test_the_same_question_gives_the_same_object_and_another_question_another(
    version: ServedVersion, radiograph: bytes, kind: ResultKind
) -> None:
    first, again = (write(kind, radiograph, predict(version, radiograph)) for _ in range(2))
    screened = write(
        kind, radiograph, predict(version, radiograph, PredictionRequest(operating_point="screen"))
    )
    shifted = write(
        kind, radiograph, predict(version, radiograph, shift=PrevalenceShift(1 / 3, 0.05))
    )
    assert first.SOPInstanceUID == again.SOPInstanceUID
    assert len({first.SOPInstanceUID, screened.SOPInstanceUID, shifted.SOPInstanceUID}) == 3
    assert len({result.SeriesInstanceUID for result in (first, again, screened, shifted)}) == 1
    assert first.SOPInstanceUID.is_valid


def test_a_report_states_the_prevalence_that_was_asked_for(
    version: ServedVersion, radiograph: bytes
) -> None:
    report = write(
        "sr", radiograph, predict(version, radiograph, shift=PrevalenceShift(1 / 3, 0.05))
    )
    assert "prevalence=0.05" in {
        item.TextValue for name, item in items(report) if name == "Algorithm Parameters"
    }


def test_a_capture_has_its_caveat_above_the_picture_and_the_picture_untouched(
    version: ServedVersion, radiograph: bytes
) -> None:
    from PIL import Image

    prediction = predict(version, radiograph)
    assert prediction.heatmap_png is not None
    picture_HW3 = np.asarray(Image.open(BytesIO(prediction.heatmap_png)))
    capture_HW3 = write("sc", radiograph, prediction).pixel_array
    np.testing.assert_array_equal(capture_HW3, draw_capture(prediction))
    top = next(
        y
        for y in range(len(capture_HW3))
        if capture_HW3[y, 200, 0] == picture_HW3[0, 72, 0] and y > 30
    )
    rows, columns, _ = picture_HW3.shape
    left = (capture_HW3.shape[1] - columns) // 2
    np.testing.assert_array_equal(capture_HW3[top : top + rows, left : left + columns], picture_HW3)
    is_red_HW = (capture_HW3[:top, :, 0] > 200) & (capture_HW3[:top, :, 2] < 120)
    assert is_red_HW.sum() > 200


@pytest.mark.parametrize("missing", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_a_header_that_names_no_study_or_series_is_refused(
    version: ServedVersion, missing: str
) -> None:
    radiograph = make_dicom(chest(64, 64), **{**UIDS, missing: None})
    with pytest.raises(CorruptImage, match="must refer to"):
        write_result("sr", radiograph, predict(version, radiograph), max_inflated_bytes=MAX_BYTES)


@pytest.mark.parametrize("data", [make_png(chest(64, 64)), make_jpeg(chest(64, 64))])
def test_a_picture_without_identity_gets_no_dicom_result(data: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match="/predict"):
        require_dicom(data)


def test_dsrdump_reads_a_report(version: ServedVersion, radiograph: bytes, tmp_path: Path) -> None:
    if shutil.which("dsrdump") is None:
        pytest.skip("no dsrdump on this machine")
    prediction = predict(version, radiograph)
    write("sr", radiograph, prediction).save_as(tmp_path / "report.dcm")
    done = subprocess.run(
        ["dsrdump", str(tmp_path / "report.dcm")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Comprehensive 3D SR Document" in done.stdout
    assert (
        f'(,,"Certainty of Finding")="{100 * prediction.finding.probability:.10}'[:-4]
        in done.stdout
    )
    assert "PRELIMINARY" in done.stdout
    assert "UNVERIFIED" in done.stdout


def test_a_service_that_writes_no_result_does_not_load_highdicom() -> None:
    code = "import sys, app.main, app.dicom_results; assert 'highdicom' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=250)


def test_a_report_is_written_in_a_moment_once_warm(
    version: ServedVersion, radiograph: bytes
) -> None:
    prediction = predict(version, radiograph)
    write_result("sr", radiograph, prediction, max_inflated_bytes=MAX_BYTES)
    started = time.process_time()
    for _ in range(5):
        write_result("sr", radiograph, prediction, max_inflated_bytes=MAX_BYTES)
    assert (time.process_time() - started) / 5 < 0.2  # some 20 ms, and room for a busy machine
