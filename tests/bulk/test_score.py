import multiprocessing
import os
import signal
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit

from bulk.archive_parts import Item
from bulk.rows import SCHEMA, UNREADABLE, Row, make_table
from bulk.score import Scorer
from bulk.scoring_job import Options, choose_bundle
from cxr.bundle import Bundle
from tests.app.serving import serving
from tests.factories import chest, make_dicom, make_png

STORE = Path(__file__).parents[2] / "model_store"
DEEP = chest(512, 480).astype(np.uint16) * 16
FILES = {
    "jpeg baseline": make_dicom(
        chest(512, 480), syntax=JPEGBaseline8Bit, PatientAge="007Y", ViewPosition=None
    ),
    "raw 12 bit": make_dicom(DEEP, BitsStored=12, HighBit=11),
    "jpeg 2000": make_dicom(DEEP, syntax=JPEG2000Lossless, BitsStored=12, HighBit=11),
    "png": make_png(chest(100, 300)),
}

BAD_FILES = (b"", b"GIF89a", FILES["jpeg 2000"][:-900], make_dicom(chest(), Modality="CT"))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return choose_bundle(STORE, "pneumothorax", None)


def score(bundle: Bundle, data: bytes, **options: object) -> Row:
    scorer = Scorer(bundle, replace(Options(), **options))  # type: ignore[arg-type]
    try:
        return scorer.score(Item("file", "1"), data)
    finally:
        scorer.close()


@pytest.mark.anyio
@pytest.mark.slow
async def test_a_row_equals_the_answer_of_the_service(bundle: Bundle) -> None:
    async with serving(STORE, default_model="pneumothorax", engine_lanes=1) as served:
        for (name, data), tta in product(FILES.items(), (False, True)):
            query = {"tta": str(tta).lower()}
            response = await served.client.post("/predict", files={"file": data}, params=query)
            answer, row = response.json(), score(bundle, data, tta=tta)

            assert row.probability == pytest.approx(answer["probability"], abs=1e-6), name
            assert (row.label, row.threshold) == (answer["label"], answer["threshold"])
            assert row.warnings == [warning["code"] for warning in answer["warnings"]]
            assert row.age_years == answer["metadata"]["age_years"]
            assert row.view_position == answer["metadata"]["view_position"]
            assert row.novelty == pytest.approx(answer["novelty"]["score"], rel=1e-5)
            assert row.model_sha256 == answer["model"]["sha256"]

        for data in BAD_FILES:
            problem = (await served.client.post("/predict", files={"file": data})).json()
            row = score(bundle, data)

            assert (row.problem, row.problem_detail) == (problem["code"], problem["detail"])
            assert row.probability is None


def test_a_suspect_file_has_the_same_answer_from_a_process_that_may_die(bundle: Bundle) -> None:
    scorer = Scorer(bundle, Options())
    plain = scorer.score(Item("file", "1"), FILES["raw 12 bit"])
    suspect = scorer.score(Item("file", "1"), FILES["raw 12 bit"], is_suspect=True)
    scorer.close()

    assert suspect == plain


def test_a_decoder_that_takes_too_long_costs_its_file_and_no_other(bundle: Bundle) -> None:
    scorer = Scorer(bundle, replace(Options(), decode_seconds=1e-4))
    slow = scorer.score(Item("slow", "1"), FILES["jpeg 2000"])
    after = scorer.score(Item("after", "1"), FILES["png"])
    scorer.close()

    assert slow.problem == "decode_limit"
    assert after.problem is None


def test_a_file_whose_decoder_stood_still_is_decoded_again(bundle: Bundle) -> None:
    file = FILES["jpeg 2000"]
    expected = score(bundle, file)
    others = multiprocessing.active_children()
    scorer = Scorer(bundle, replace(Options(), decode_seconds=15.0))
    try:
        scorer.score(Item("first", "1"), file)
        (decoder,) = set(multiprocessing.active_children()) - set(others)
        assert decoder.pid is not None
        os.kill(decoder.pid, signal.SIGSTOP)
        row = scorer.score(Item("second", "1"), file)
    finally:
        scorer.close()

    assert row.problem is None
    assert row.probability == expected.probability


def test_a_table_has_a_column_for_each_field_of_a_row() -> None:
    assert SCHEMA.names == list(Row.__dataclass_fields__)
    assert make_table([Row("a", "1"), Row("b", "2")]).column("path").to_pylist() == ["a", "b"]


def test_the_page_about_bulk_lists_every_column() -> None:
    page = (Path(__file__).parents[2] / "docs/bulk.md").read_text()

    assert [name for name in SCHEMA.names if f"`{name}`" not in page] == []


@pytest.mark.usefixtures("no_process_starts")
def test_a_file_that_could_not_be_decoded_here_and_now_is_left_to_a_later_run(
    bundle: Bundle,
) -> None:
    row = score(bundle, FILES["jpeg 2000"])

    assert (row.problem, row.probability) == (UNREADABLE, None)
    assert row.problem_detail == "A process for decoding could not be started."


def test_an_empty_file_has_the_code_that_the_service_gives_it(bundle: Bundle) -> None:
    row = score(bundle, b"")

    assert (row.problem, row.problem_detail) == ("malformed_request", "The file is empty.")
