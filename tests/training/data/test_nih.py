from pathlib import Path

import pytest

from cxr.phantom import draw_phantom
from tests.factories import make_png
from training.data import DataError, load_index

HEAD = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two persons, three images in two folders, and one line without a file."""
    places = {
        "00000001_000.png": "images_001/images",
        "00000001_001.png": "images_001/images",
        "00000002_000.png": "images_002/images",
    }
    for number, (name, place) in enumerate(places.items()):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / name).write_bytes(make_png(draw_phantom(64, 64, seed=number)))
    (tmp_path / "Data_Entry_2017_v2020.csv").write_text(
        HEAD
        + "00000001_000.png,Effusion|Pneumothorax,0,1,058Y,M,PA\n"
        + "00000001_001.png,No Finding,1,1,59,M,AP\n"
        + "00000002_000.png,Pleural_Thickening,0,2,414,F,PA\n"
        + "00000003_000.png,Pneumothorax,0,3,20,F,PA\n"
    )
    return tmp_path


def test_the_table_of_the_owner_is_read_as_it_is(folder: Path) -> None:
    index = load_index(folder, finding="pneumothorax")

    assert index.name == "nih"
    assert [row.label for row in index.rows] == [1, 0, 0]
    assert [row.person_group for row in index.rows] == ["nih00000001", "nih00000001", "nih00000002"]
    assert [row.age_years for row in index.rows] == [58.0, 59.0, None]
    assert [(row.sex, row.view_position) for row in index.rows] == [
        ("M", "PA"),
        ("M", "AP"),
        ("F", "PA"),
    ]
    assert index.missing == ("00000003_000.png",)
    assert all(row.is_doubtful for row in index.rows)


@pytest.mark.parametrize("finding", ["pleural thickening", "Pleural_Thickening"])
def test_any_of_its_findings_may_be_the_task(folder: Path, finding: str) -> None:
    assert [row.label for row in load_index(folder, finding=finding).rows] == [0, 0, 1]


def test_an_unknown_finding_is_refused_with_the_known_ones(folder: Path) -> None:
    with pytest.raises(DataError, match=r"name one of Atelectasis, .*Pneumothorax"):
        load_index(folder, finding="brightness")
