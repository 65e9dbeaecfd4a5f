"""Both layouts, as they come from their makers."""

import os
from pathlib import Path

import numpy as np
import pytest

from tests.factories import make_dicom, make_jpeg, ramp
from training.data import DataError, DataIndex, IndexRow, load_index
from training.data.class_folders import person_group
from training.data.index import join_groups
from training.data.siim import decode_runs, read_runs


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def picture(seed: int) -> bytes:
    return make_jpeg(np.full((64, 64), seed, dtype=np.uint8))


def class_folders(folder: Path) -> Path:
    write(folder / "NORMAL/IM-0115-0001.jpeg", picture(1))
    write(folder / "NORMAL/NORMAL2-IM-0115-0001.jpeg", picture(2))
    write(folder / "NORMAL/Thumbs.db", b"no image")
    write(folder / "PNEUMONIA/person7_bacteria_20.jpeg", picture(3))
    write(folder / "PNEUMONIA/person8_virus_21.jpeg", picture(4))
    return folder


def siim_tree(folder: Path, *, header: str = "ImageId, EncodedPixels", nested: bool = True) -> Path:
    for number, name in enumerate(["1.a", "1.b", "1.c"]):
        place = f"dicom-images-train/study{number}/series" if nested else "dicom-images-train"
        write(
            folder / place / f"{name}.dcm",
            make_dicom(ramp(64 + number), PatientID=f"patient {number % 2}"),
        )
    table = f"{header}\n1.a,-1\n1.b,5 2 3 1\n1.b,20 4\n1.c, -1\n1.gone,-1\n"
    (folder / "train-rle.csv").write_text(table)
    return folder


@pytest.mark.parametrize(
    ("stem", "group"),
    [
        ("person123_bacteria_456", "person123"),
        ("person123_virus_4", "person123"),
        ("person1_virus_4_1", "person1"),
        ("IM-0115-0001", "IM115"),
        ("IM-0115-0001-0002", "IM115"),
        ("NORMAL2-IM-0115-0001", "IM115"),
        ("scan 12", "scan 12"),
    ],
)
def test_the_patient_is_read_from_the_name_of_a_file(stem: str, group: str) -> None:
    assert person_group(stem) == group


def test_class_folders_are_indexed_with_label_and_patient(tmp_path: Path) -> None:
    index = load_index(class_folders(tmp_path))

    assert index.name == "class-folders"
    assert [(row.path, row.label, row.person_group) for row in index.rows] == [
        ("NORMAL/IM-0115-0001.jpeg", 0, "IM115"),
        ("NORMAL/NORMAL2-IM-0115-0001.jpeg", 0, "IM115"),
        ("PNEUMONIA/person7_bacteria_20.jpeg", 1, "person7"),
        ("PNEUMONIA/person8_virus_21.jpeg", 1, "person8"),
    ]


def test_training_reads_train_and_val_and_testing_reads_test(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        class_folders(tmp_path / part)

    learned = {row.path.split("/")[0] for row in load_index(tmp_path).rows}
    tested = {row.path.split("/")[0] for row in load_index(tmp_path, purpose="test").rows}

    assert (learned, tested) == ({"train", "val"}, {"test"})


def test_testing_reads_train_where_there_is_nothing_else(tmp_path: Path) -> None:
    class_folders(tmp_path / "train")

    assert len(load_index(tmp_path, purpose="test")) == 4


def test_training_refuses_a_test_split_that_was_not_named_itself(tmp_path: Path) -> None:
    class_folders(tmp_path / "test")

    with pytest.raises(DataError, match="holds a test/ only"):
        load_index(tmp_path)
    assert len(load_index(tmp_path / "test")) == 4


def test_the_same_picture_under_two_names_is_one_person(tmp_path: Path) -> None:
    class_folders(tmp_path)
    write(tmp_path / "PNEUMONIA/person9_virus_30.jpeg", picture(3))

    groups = {row.image_id: row.person_group for row in load_index(tmp_path).rows}

    assert groups["person9_virus_30"] == groups["person7_bacteria_20"] != groups["person8_virus_21"]


def test_groups_are_joined_along_chains_of_shared_files() -> None:
    pairs = [("a", "1"), ("b", "1"), ("b", "2"), ("c", "2"), ("d", "3")]
    rows = [
        IndexRow(image_id=str(i), path=str(i), sha256=digest, person_group=group, label=0)
        for i, (group, digest) in enumerate(pairs)
    ]

    assert [row.person_group for row in join_groups(rows)] == ["a", "a", "a", "a", "d"]


@pytest.mark.parametrize("header", ["ImageId, EncodedPixels", "ImageId,EncodedPixels"])
@pytest.mark.parametrize("nested", [True, False])
def test_a_siim_tree_is_indexed_in_both_generations_nested_or_flat(
    tmp_path: Path,
    header: str,
    nested: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    index = load_index(siim_tree(tmp_path, header=header, nested=nested))

    assert index.name == "siim"
    assert {row.image_id: row.label for row in index.rows} == {"1.a": 0, "1.b": 1, "1.c": 0}
    assert index.missing == ("1.gone",)


def test_persons_come_from_groups_csv_where_it_is_there(tmp_path: Path) -> None:
    (siim_tree(tmp_path) / "groups.csv").write_text(
        "ImageId,person_group\n1.a,M062\n1.b,M062\n1.c,F030\n"
    )

    assert {row.image_id: row.person_group for row in load_index(tmp_path).rows} == {
        "1.a": "M062",
        "1.b": "M062",
        "1.c": "F030",
    }


def test_persons_come_from_the_header_otherwise_and_their_identity_does_not(tmp_path: Path) -> None:
    groups = {row.image_id: row.person_group for row in load_index(siim_tree(tmp_path)).rows}

    assert groups["1.a"] == groups["1.c"] != groups["1.b"]
    assert not any("patient 0" in group for group in groups.values())


def test_several_rows_of_an_image_are_one_image_with_several_masks(tmp_path: Path) -> None:
    assert read_runs(siim_tree(tmp_path) / "train-rle.csv")["1.b"] == ["5 2 3 1", "20 4"]


def test_runs_count_down_the_columns_each_from_the_end_of_the_last() -> None:
    mask = decode_runs(["1 2 3 1"], rows=4, columns=3)

    assert np.flatnonzero(mask.T.ravel()).tolist() == [1, 2, 6]
    assert (mask[1, 0], mask[2, 0], mask[2, 1]) == (True, True, True)


def test_the_masks_of_an_image_are_joined() -> None:
    assert decode_runs(["0 1", "5 1"], rows=2, columns=3).sum() == 2
    assert decode_runs([], rows=2, columns=3).sum() == 0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("1 2 3", "pairs"), ("a b", "pairs"), ("5 9", "leaves"), ("-1 2", "leaves")],
)
def test_a_mask_that_can_not_be_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        decode_runs([text], rows=3, columns=4)


def test_a_folder_of_neither_layout_is_told_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"SIIM tree .* class folders .*NORMAL/ and PNEUMONIA/"):
        load_index(tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        load_index(tmp_path / "missing")


def test_several_mask_tables_that_differ_are_refused(tmp_path: Path) -> None:
    (siim_tree(tmp_path) / "second.csv").write_text("ImageId,EncodedPixels\n1.a,5 2\n")

    with pytest.raises(DataError, match=r"second\.csv, train-rle\.csv"):
        load_index(tmp_path)


def labels(index: DataIndex) -> dict[str, int]:
    return {row.image_id: row.label for row in index.rows}


def test_both_tables_of_the_official_download_may_lie_together(tmp_path: Path) -> None:
    expected = labels(load_index(siim_tree(tmp_path)))
    whole = (tmp_path / "train-rle.csv").read_text().replace(", Enc", ",Enc")
    (tmp_path / "stage_2_train.csv").write_text(whole + "1.later,-1\n")
    (tmp_path / "stage_2_sample_submission.csv").write_text(
        "ImageId,EncodedPixels\n1.b,-1\n1.test,1 2\n"
    )
    index = load_index(tmp_path)
    assert labels(index) == expected
    assert "1.later" in index.missing


@pytest.mark.parametrize(
    "header",
    [
        '"ImageId","EncodedPixels"',
        '"ImageId", "EncodedPixels"',
        "'ImageId'".replace("'", '"') + ',"EncodedPixels"',
        "\ufeffImageId,EncodedPixels",
        "ImageId;EncodedPixels",
        '"ImageId"\t"EncodedPixels"',
    ],
)
def test_a_table_may_quote_and_separate_as_r_and_excel_do(tmp_path: Path, header: str) -> None:
    expected = labels(load_index(siim_tree(tmp_path)))
    separator = next((mark for mark in (";", "\t") if mark in header), ",")
    lines = (tmp_path / "train-rle.csv").read_text().splitlines()[1:]
    quoted = [
        separator.join(f'"{cell.strip()}"' for cell in line.split(",", maxsplit=1))
        for line in lines
    ]
    (tmp_path / "train-rle.csv").write_text("\n".join([header, *quoted]), encoding="utf-8")
    assert labels(load_index(tmp_path)) == expected


@pytest.mark.parametrize("ending", [".DCM", ".dicom", ".Dcm", ""])
def test_dicom_files_are_known_by_any_ending_or_by_their_content(
    tmp_path: Path, ending: str
) -> None:
    expected = labels(load_index(siim_tree(tmp_path)))
    for path in sorted(tmp_path.rglob("*.dcm")):
        path.rename(path.with_name(path.name.removesuffix(".dcm") + ending))
    assert labels(load_index(tmp_path)) == expected


def test_a_uid_without_an_ending_keeps_its_last_number(tmp_path: Path) -> None:
    write(tmp_path / "1.2.840.11", make_dicom(ramp(64)))
    write(tmp_path / "1.2.840.12", make_dicom(ramp(65)))
    write(tmp_path / "1.2.840.13", b"no image")
    (tmp_path / "train.CSV").write_text("ImageId,EncodedPixels\n1.2.840.11,-1\n1.2.840.12,5 2\n")
    assert labels(load_index(tmp_path)) == {"1.2.840.11": 0, "1.2.840.12": 1}


def test_stubs_of_macos_take_no_part(tmp_path: Path) -> None:
    siim_tree(tmp_path / "siim")
    write(tmp_path / "siim/dicom-images-train/._1.a.dcm", b"stub")
    write(tmp_path / "siim/._train-rle.csv", b"\0\5\x16\7")
    index = load_index(tmp_path / "siim")
    assert (len(index), index.unlisted) == (3, ())
    class_folders(tmp_path / "classes")
    write(tmp_path / "classes/NORMAL/._IM-0115-0001.jpeg", b"stub")
    write(tmp_path / "classes/__MACOSX/NORMAL/IM-1.jpeg", b"stub")
    assert len(load_index(tmp_path / "classes")) == 4


@pytest.mark.parametrize(
    ("normal", "pneumonia"), [("Normal", "Pneumonia"), ("normal", "pneumonia")]
)
@pytest.mark.parametrize("above", ["", "chest_xray", "chest_xray/Train"])
def test_class_folders_are_found_in_any_case_and_one_level_deeper(
    tmp_path: Path, normal: str, pneumonia: str, above: str
) -> None:
    folder = class_folders(tmp_path / above)
    (folder / "NORMAL").rename(folder / normal)
    (folder / "PNEUMONIA").rename(folder / pneumonia)
    assert sorted(labels(load_index(tmp_path)).values()) == [0, 0, 1, 1]


def test_several_folders_with_class_folders_are_told_apart(tmp_path: Path) -> None:
    class_folders(tmp_path / "one")
    class_folders(tmp_path / "two")
    with pytest.raises(DataError, match="class folders in one, two; name one"):
        load_index(tmp_path)


def test_a_jfif_file_is_an_image(tmp_path: Path) -> None:
    folder = class_folders(tmp_path)
    (folder / "NORMAL/IM-0115-0001.jpeg").rename(folder / "NORMAL/IM-0115-0001.jfif")
    assert len(load_index(folder)) == 4


def test_pipes_devices_and_dead_links_are_no_images(tmp_path: Path) -> None:
    """Reading a pipe waits for ever, and reading a device never ends."""
    class_folders(tmp_path)
    os.mkfifo(tmp_path / "NORMAL/IM-9001-0001.jpeg")
    (tmp_path / "NORMAL/IM-9002-0001.jpeg").symlink_to("/dev/zero")
    (tmp_path / "PNEUMONIA/person9_virus_1.jpeg").symlink_to("gone")
    (tmp_path / "PNEUMONIA/person10_virus_1.jpeg").mkdir()

    index = load_index(tmp_path)

    assert len(index.rows) == 4
    assert len(index.unlisted) == 5  # these, and Thumbs.db


def test_the_fingerprint_follows_pictures_and_labels_and_not_their_places(tmp_path: Path) -> None:
    here, there, other = (
        class_folders(tmp_path / name) for name in ("here", "there/train", "other")
    )
    write(other / "NORMAL/IM-0115-0001.jpeg", picture(9))

    assert (
        load_index(here).fingerprint
        == load_index(there.parent).fingerprint
        != load_index(other).fingerprint
    )


def test_an_index_is_written_and_read_back_whole(tmp_path: Path) -> None:
    rows = (
        IndexRow(
            image_id="a,b",
            path="x/a,b.dcm",
            sha256="0" * 64,
            person_group="p",
            label=1,
            age_years=0.5,
            sex="F",
        ),
        IndexRow(
            image_id="c",
            path="x/c.dcm",
            sha256="1" * 64,
            person_group="q",
            label=0,
            view_position="AP",
        ),
    )
    index = DataIndex("made", rows)

    index.write_csv(tmp_path / "index.csv")

    assert DataIndex.read_csv(tmp_path / "index.csv", "made") == index


def test_exploring_reads_every_part_of_a_split_folder(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        class_folders(tmp_path / part)

    assert len(load_index(tmp_path, purpose="explore")) == 12
    assert len(load_index(tmp_path)) == 8


def test_files_without_a_label_are_listed_and_take_no_part(tmp_path: Path) -> None:
    siim_tree(tmp_path / "siim")
    write(tmp_path / "siim/dicom-images-test/1.other.dcm", make_dicom(ramp(80)))
    write(
        tmp_path / "siim/copy/1.a.dcm",
        (tmp_path / "siim/dicom-images-train/study0/series/1.a.dcm").read_bytes(),
    )

    siim, folders = load_index(tmp_path / "siim"), load_index(class_folders(tmp_path / "folders"))

    assert siim.unlisted == (
        "dicom-images-test/1.other.dcm",
        "dicom-images-train/study0/series/1.a.dcm",
    )
    assert len(siim) == 3
    assert folders.unlisted == ("NORMAL/Thumbs.db",)


def test_two_different_files_of_one_name_are_refused(tmp_path: Path) -> None:
    write(siim_tree(tmp_path) / "copy/1.a.dcm", make_dicom(ramp(90)))

    with pytest.raises(
        DataError, match=r"1\.a\.dcm have one name and different content; remove one"
    ):
        load_index(tmp_path)


def test_a_group_table_joins_persons_and_never_divides_them(tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    table.write_text(
        "ImageId,person_group\nperson7_bacteria_20,x\nperson8_virus_21,x\nIM-0115-0001,y\nNORMAL2-IM-0115-0001,z\n"
    )

    index = load_index(class_folders(tmp_path / "films"), groups=table)

    assert {row.image_id: row.person_group for row in index.rows} == {
        "IM-0115-0001": "IM115",
        "NORMAL2-IM-0115-0001": "IM115",
        "person7_bacteria_20": "person7",
        "person8_virus_21": "person7",
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("ImageId,patient\na,b\n", r"line 2 lacks ImageId or person_group: name both columns"),
        ("ImageId,person_group\nIM-0115-0001\n", r"line 2 lacks"),
        ("ImageId,person_group\na,p\na,q\n", r"line 3: a is already in another group"),
        (
            "ImageId,person_group\nnobody,p\n",
            r"names no image of .*a file's name without its ending",
        ),
    ],
)
def test_a_group_table_that_can_not_be_meant_is_refused(
    tmp_path: Path, text: str, complaint: str
) -> None:
    (tmp_path / "groups.csv").write_text(text)

    with pytest.raises(DataError, match=complaint):
        load_index(class_folders(tmp_path / "films"), groups=tmp_path / "groups.csv")


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("1.a,", "line 7 lacks a value; an image without a pneumothorax has -1"),
        ("1.b,-1", "has 1.b both with a mask and with -1"),
    ],
)
def test_a_mask_table_that_says_two_things_or_nothing_is_refused(
    tmp_path: Path, row: str, complaint: str
) -> None:
    with (siim_tree(tmp_path) / "train-rle.csv").open("a") as file:
        file.write(f"{row}\n")

    with pytest.raises(DataError, match=complaint):
        load_index(tmp_path)


def test_a_table_that_is_no_text_is_told_how_to_save_it(tmp_path: Path) -> None:
    (siim_tree(tmp_path) / "groups.csv").write_bytes(
        "ImageId,person_group\n1.a,Müller\n".encode("latin-1")
    )

    with pytest.raises(DataError, match="no CSV file in UTF-8"):
        load_index(tmp_path)
