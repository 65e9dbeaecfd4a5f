"""The labels layout: a table of images, and what several folders become together."""

from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from cxr.phantom import draw_phantom
from tests.factories import make_png
from training.data import DataError, load_index, load_indexes
from training.data.arguments import WeightedFolder, weighted_folder
from training.data.index import DataIndex


def make_folder(folder: Path, table: str, names: tuple[str, ...] = ("a", "b")) -> Path:
    """Write phantoms of these names, and the table beside them."""
    (folder / "images").mkdir(parents=True)
    for number, name in enumerate(names):
        seed = number + len(folder.name)
        picture = make_png(draw_phantom(64, 64, seed=seed))
        (folder / "images" / f"{name}.png").write_bytes(picture)
    (folder / "labels.csv").write_text(table, encoding="utf-8")
    return folder


def test_a_table_says_all_that_is_known_of_an_image(tmp_path: Path) -> None:
    table = (
        "file,person_group,edema,age,sex,view,source,label_quality,weight,finding_labels\n"
        "images/b.png,p1,1,61,F,AP,ward,report-mined,0.5,Edema|Mass\n"
        "images/a.png,p2,0.3,,,,,expert,,\n"
    )
    index = load_index(make_folder(tmp_path / "one", table), finding="edema")
    doubtful = index.rows[1]

    assert index.name == "labels"
    assert [row.image_id for row in index.rows] == ["a", "b"]
    assert (index.rows[0].label, index.rows[0].target, index.rows[0].is_doubtful) == (0, 0.3, False)
    assert (doubtful.label, doubtful.target, doubtful.is_doubtful) == (1, None, True)
    assert (doubtful.age_years, doubtful.sex, doubtful.view_position) == (61.0, "F", "AP")
    assert (doubtful.source, doubtful.weight) == ("ward", 0.5)
    assert doubtful.other_findings == "Edema|Mass"


def test_an_index_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    table = "file,edema,label_quality,weight\nimages/a.png,0.7,report-mined,2\nimages/b.png,0,,\n"
    index = load_index(make_folder(tmp_path / "one", table), finding="edema")
    index.write_csv(tmp_path / "index.csv")

    assert DataIndex.read_csv(tmp_path / "index.csv", index.name).rows == index.rows


def test_a_line_without_its_file_is_listed_and_takes_no_part(tmp_path: Path) -> None:
    table = "file,edema\nimages/a.png,1\nimages/lost.png,0\n"
    index = load_index(make_folder(tmp_path / "one", table), finding="edema")

    assert index.missing == ("images/lost.png",)
    assert len(index) == 1


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("images/a.png,maybe,", "no number"),
        ("images/a.png,1.5,", "between 0 and 1"),
        ("images/a.png,1,guessed", "label_quality"),
        ("../a.png,1,", "inside the data folder"),
        ("images/a.png,1,\nimages/a.png,0,", "twice"),
    ],
)
def test_a_line_that_makes_no_sense_is_refused(tmp_path: Path, line: str, fault: str) -> None:
    folder = make_folder(tmp_path / "one", f"file,edema,label_quality\n{line}\n")

    with pytest.raises(DataError, match=fault):
        load_index(folder, finding="edema")


def test_a_finding_without_a_column_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "one", "file,edema\nimages/a.png,1\n")

    with pytest.raises(DataError, match="columns file and hernia"):
        load_index(folder, finding="hernia")


def test_persons_are_joined_over_several_folders(tmp_path: Path) -> None:
    one = make_folder(tmp_path / "one", "file,person_group,edema\nimages/a.png,p1,1\n")
    other = make_folder(
        tmp_path / "another", "file,person_group,edema\nimages/c.png,q1,0\nimages/d.png,q2,1\n",
        ("c", "d"),
    )  # fmt: skip
    groups = tmp_path / "groups.csv"
    groups.write_text("ImageId,person_group\na,q2\n", encoding="utf-8")

    index = load_indexes([one, other], groups=groups, finding="edema")
    group_of = {row.image_id: row.person_group for row in index.rows}

    assert group_of["a"] == group_of["d"]
    assert group_of["a"] != group_of["c"]
    assert [row.folder for row in index.rows] == [0, 1, 1]


def test_a_folders_weight_multiplies_those_of_its_images(tmp_path: Path) -> None:
    one = make_folder(tmp_path / "one", "file,edema,weight\nimages/a.png,1,0.5\nimages/b.png,0,\n")
    other = make_folder(tmp_path / "other", "file,edema\nimages/a.png,1\n", names=("a",))

    index = load_indexes([one, other], finding="edema", weights=[2.0, 0.25])

    assert [row.weight for row in index.rows] == [1.0, 2.0, 0.25]


def test_the_command_line_gives_a_folder_its_weight(tmp_path: Path) -> None:
    named_so = tmp_path / "a=1"
    named_so.mkdir()

    assert weighted_folder("films") == WeightedFolder(Path("films"), 1.0)
    assert weighted_folder("films=0.5") == WeightedFolder(Path("films"), 0.5)
    assert weighted_folder("films=old") == WeightedFolder(Path("films=old"), 1.0)
    assert weighted_folder("2017") == WeightedFolder(Path("2017"), 1.0)
    assert weighted_folder(str(named_so)) == WeightedFolder(named_so, 1.0)
    for weight in ("0", "-1", "nan"):
        with pytest.raises(ArgumentTypeError, match="above 0"):
            weighted_folder(f"films={weight}")
