import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from gateway.header import UnreadableHeader, read_facts
from gateway.loop_guard import is_foreign
from gateway.rules import choose
from gateway.settings import Rule
from tests.factories import chest, make_dicom
from tests.gateway.conftest import film
from tests.phi_marked_files import deflate_bomb, find_marks, item, marked_dicom
from tests.server import ROOT


def data_of(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def chosen(rules: list[dict[str, Any]], source_ae: str = "ROOM1", **tags: Any) -> str | None:
    made = tuple(Rule.model_validate({"silent": True, **rule}) for rule in rules)
    rule = choose(made, read_facts(data_of(film(**tags))), source_ae)
    return rule.name if rule else None


@pytest.mark.parametrize(
    ("condition", "yes", "no"),
    [
        ({"modality": ["CR", "DX"]}, {"Modality": "DX"}, {"Modality": "OT"}),
        ({"modality": ["unstated"]}, {"Modality": ""}, {"Modality": "CR"}),
        ({"body_part": ["CHEST"]}, {"BodyPartExamined": "CHEST"}, {"BodyPartExamined": ""}),
        ({"view": ["PA", "AP"]}, {"ViewPosition": "AP"}, {"ViewPosition": "LL"}),
        ({"view": ["unstated"]}, {"ViewPosition": ""}, {"ViewPosition": "PA"}),
        ({"age_years": {"min": 18}}, {"PatientAge": "018Y"}, {"PatientAge": "017Y"}),
        ({"age_years": {"max": 5}}, {"PatientAge": "059M"}, {"PatientAge": "061M"}),
        ({"age_years": {"unstated": False}}, {"PatientAge": "041Y"}, {"PatientAge": None}),
        (
            {"age_years": {"max": 17.9, "unstated": False}},
            {"PatientAge": None, "PatientBirthDate": "20200131", "StudyDate": "20261129"},
            {"PatientAge": None, "PatientBirthDate": "19600131", "StudyDate": "20261129"},
        ),
    ],
)
def test_a_condition_decides(
    condition: dict[str, Any], yes: dict[str, Any], no: dict[str, Any]
) -> None:
    assert chosen([{"name": "one", **condition}], **yes) == "one"
    assert chosen([{"name": "one", **condition}], **no) is None


@pytest.mark.parametrize("charset", ["ISO_IR 192", "ISO_IR 100", "ISO_IR 144"])
def test_an_accession_number_is_read_in_its_own_letters(charset: str) -> None:
    number = "Ж12" if charset == "ISO_IR 144" else "Å12"
    data = data_of(film(SpecificCharacterSet=charset, AccessionNumber=number))
    assert read_facts(data).accession == number


def test_the_first_rule_that_matches_decides() -> None:
    rules: list[dict[str, Any]] = [
        {"name": "children", "age_years": {"max": 17.9, "unstated": False}},
        {"name": "room 1", "calling_ae": ["ROOM1"]},
        {"name": "rest"},
    ]
    assert chosen(rules, PatientAge="003Y") == "children"
    assert chosen(rules, PatientAge="050Y") == "room 1"
    assert chosen(rules, source_ae="ROOM2", PatientAge="050Y") == "rest"


def test_facts_come_from_a_code_or_a_deflated_header_too() -> None:
    extra = Dataset()
    extra.ViewCodeSequence = [item(CodeValue="399348003", CodingSchemeDesignator="SCT")]
    data = make_dicom(
        chest(64, 64), syntax=DeflatedExplicitVRLittleEndian, ViewPosition=None, extra=extra
    )
    facts = read_facts(data)
    assert (facts.view, facts.age_years, facts.sex, facts.modality) == ("AP", 41, "F", "CR")


@pytest.mark.parametrize(
    ("charset", "number"),
    [
        (["", "ISO 2022 IR 87"], "A1-\u4fd1能"),  # a byte 5C is half of the first
        (["", "ISO 2022 IR 149"], "A1-홍길동"),
        ("GB18030", "A1-\u661e"),
    ],
)
def test_an_accession_number_is_read_by_all_character_sets(charset: Any, number: str) -> None:
    data = data_of(film(SpecificCharacterSet=charset, AccessionNumber=number))
    assert number.isascii() or number.encode() not in data
    assert read_facts(data).accession == number


@pytest.mark.parametrize("data", [b"", b"no file", b"\0" * 128 + b"DICM" + b"\xff" * 99])
def test_what_is_no_dicom_file_is_called_unreadable(data: bytes) -> None:
    with pytest.raises(UnreadableHeader):
        read_facts(data)


def test_a_header_that_inflates_without_end_is_bounded() -> None:
    assert read_facts(deflate_bomb()).modality in ("", "CR")


@pytest.mark.parametrize(
    "tags",
    [
        {"Modality": "SR"},
        {"Manufacturer": "cxr-serve"},
        {"SeriesNumber": 9002, "SOPInstanceUID": "2.25.1"},
        {"ContributingEquipmentSequence": [item(Manufacturer="cxr-serve")]},
    ],
)
def test_a_result_is_never_scored(tags: dict[str, Any]) -> None:
    assert is_foreign(read_facts(data_of(film(**tags))))
    assert not is_foreign(read_facts(data_of(film())))


def test_explain_says_which_rule_and_why_and_nothing_of_the_patient(tmp_path: Path) -> None:
    config, file = tmp_path / "gateway.toml", tmp_path / "film.dcm"
    config.write_text(
        '[[peers]]\nae_title = "ROOM1"\n'
        '[[rules]]\nname = "children"\nage_years = {max = 17, unstated = false}\nsilent = true\n'
        '[[rules]]\nname = "adults"\nmodality = ["CR"]\nview = ["PA"]\nsilent = true\n'
    )
    file.write_bytes(marked_dicom())
    command = [sys.executable, "-m", "gateway", "--config", str(config), "explain"]
    done = subprocess.run(
        [*command, str(file)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert 'rule "children" does not apply' in done.stdout
    assert 'rule "adults" applies' in done.stdout
    assert "NO  age_years must be 0 to 17; it is outside" in done.stdout
    assert find_marks(done.stdout + done.stderr) == set()
