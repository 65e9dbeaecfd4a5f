"""The data report: what it finds in folders that were made to hold it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxr.decode import quiet_libraries
from tests.factories import chest, make_dicom, make_jpeg, make_png
from training.__main__ import main
from training.data import load_index
from training.data.fold_balance import balance_lines
from training.data.groups import read_groups
from training.data.split import split_folds
from training.explore.duplicates import clusters, near_pairs
from training.explore.lesions import measure_lesions
from training.explore.read_files import scan_file
from training.explore.survey import FOLDS, explore

MASK = "6000 40 56 40"
"""80 of the 9,216 pixels of a 96 x 96 image."""


@pytest.fixture(scope="module")
def siim_report(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, Path]:
    """A SIIM tree with one of everything that goes wrong, and the report on it."""
    folder = tmp_path_factory.mktemp("siim")
    rows = ["ImageId,EncodedPixels", "gone,-1"]
    for number in range(24):
        pixels = chest(96, 96, seed=number)
        tags: dict[str, Any] = {
            "PatientID": f"p{number}",
            "PatientSex": "MF"[number % 2],
            "ViewPosition": ["PA", "AP"][number % 3 == 0],
        }
        raw = {"041Y": {0: b"148 ", 1: b"62  ", 2: b"006M"}[number]} if number < 3 else None
        data = make_dicom(pixels, raw=raw, **tags)
        if number == 5:
            data = make_dicom(
                np.clip(chest(96, 96, seed=4).astype(int) + 2, 0, 255).astype(np.uint8), **tags
            )
        (folder / f"i{number}.dcm").write_bytes(data[: len(data) // 2] if number == 7 else data)
        rows += (
            [f"i{number},{MASK}", f"i{number},9000 30"] if number % 4 == 0 else [f"i{number},-1"]
        )
    (folder / "unlisted.dcm").write_bytes(make_dicom(chest(96, 96, seed=99)))
    (folder / "train-rle.csv").write_text("\n".join(rows) + "\n")
    out = tmp_path_factory.mktemp("out")
    assert main(["explore", "--data", str(folder), "--out", str(out)]) == 0
    return json.loads((out / "explore.json").read_text()), (out / "report.html").read_text(), out


def remarks(figures: dict[str, Any]) -> str:
    return "\n".join(f"{remark['level']}: {remark['text']}" for remark in figures["remarks"])


def test_rows_are_held_against_images(siim_report: tuple[dict[str, Any], str, Path]) -> None:
    figures = siim_report[0]

    assert (
        figures["files"]["table_rows"],
        figures["files"]["listed_images"],
        figures["files"]["files"],
    ) == (31, 25, 24)
    assert "note: 31 rows are 25 images: the table has one row a mask" in remarks(figures)


def test_what_is_missing_unlisted_or_unreadable_is_named(
    siim_report: tuple[dict[str, Any], str, Path],
) -> None:
    files = siim_report[0]["files"]

    assert files["missing"] == {"n": 1, "image_ids": ["gone"]}
    assert files["unlisted"] == {"n": 1, "paths": ["unlisted.dcm"]}
    assert [(item["image_id"], item["code"]) for item in files["unreadable"]] == [
        ("i7", "corrupt_image")
    ]
    assert "i7.dcm: corrupt_image" in siim_report[1]


def test_ages_of_every_form_are_read_and_impossible_ones_are_counted(
    siim_report: tuple[dict[str, Any], str, Path],
) -> None:
    ages = siim_report[0]["metadata"]["age_years"]

    assert ages["set_to_missing"] == {"n": 1, "ages": [{"image_id": "i0", "stated": "148"}]}
    assert (ages["stated"], ages["missing"]) == (22, 1)
    assert (ages["quantiles"]["min"], ages["quantiles"]["max"]) == (0.5, 62.0)
    assert ages["unusual"]["ages"] == [0.5, 62.0]


def test_a_near_copy_under_another_person_is_an_alarm_and_a_group_table(
    siim_report: tuple[dict[str, Any], str, Path],
) -> None:
    figures, _, out = siim_report

    assert figures["duplicates"]["near"]["most_alike"][0]["image_ids"] == ["i4", "i5"]
    assert (
        "alarm: Pairs of pictures that are nearly the same and said to be two persons"
        in remarks(figures)
    )
    groups = read_groups(out / "near_duplicates.csv")
    assert groups["i4"] == groups["i5"]


def test_lesions_are_measured_over_joined_masks(
    siim_report: tuple[dict[str, Any], str, Path],
) -> None:
    lesions = siim_report[0]["lesions"]

    assert (lesions["n"], lesions["with_several_masks"]) == (6, 6)
    assert lesions["share_of_image"]["median"] == pytest.approx(110 / 96**2)


def test_the_page_needs_nothing_from_elsewhere_and_shows_pictures(
    siim_report: tuple[dict[str, Any], str, Path],
) -> None:
    html = siim_report[1]

    assert "<script" not in html
    assert {target[:11] for target in re.findall(r'(?:src|href)="([^#"][^"]*)"', html)} == {
        "data:image/"
    }
    assert html.count('alt="radiograph"') > 20
    clips = re.findall(r'<clipPath id="([^"]+)"', html)
    assert len(clips) == len(set(clips))


def test_no_patient_id_is_in_the_report(siim_report: tuple[dict[str, Any], str, Path]) -> None:
    assert "Marked" not in siim_report[1]
    assert "MARKED" not in siim_report[1]


@pytest.fixture
def folders(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Make class folders in train/ and test/ and report on them."""

    def report(
        *, shape_of_positives: tuple[int, int] = (96, 96), same_person: bool = False
    ) -> dict[str, Any]:
        for number in range(40):
            part, positive = ("train", "test")[number % 4 == 3], number % 2
            person = 0 if same_person and number in (1, 3) else number
            name = (
                f"PNEUMONIA/person{person}_virus_{number}.png"
                if positive
                else f"NORMAL/IM-{number:04d}-0001.png"
            )
            path = tmp_path / "films" / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(
                make_png(chest(*(shape_of_positives if positive else (96, 96)), seed=number))
            )
        for part in ("train", "test"):
            (tmp_path / "films" / part / "NORMAL").mkdir(parents=True, exist_ok=True)
            (tmp_path / "films" / part / "NORMAL/IM-0900-0001.png").write_bytes(
                make_png(chest(96, 96, seed=900))
            )
        assert (
            main(["explore", "--data", str(tmp_path / "films"), "--out", str(tmp_path / "out")])
            == 0
        )
        figures: dict[str, Any] = json.loads((tmp_path / "out/explore.json").read_text())
        return figures

    return report


def test_classes_of_different_shape_are_a_shortcut(folders: Callable[..., dict[str, Any]]) -> None:
    figures = folders(shape_of_positives=(96, 128))

    assert figures["shortcuts"]["width over height"]["flagged"]
    assert "alarm: Width over height alone tells the classes apart with AUROC 1.00" in remarks(
        figures
    )


def test_no_positive_image_is_an_alarm(tmp_path: Path) -> None:
    names = [f"film{number}" for number in range(6)]
    for number, name in enumerate(names):
        (tmp_path / f"{name}.dcm").write_bytes(make_dicom(chest(64, 64 + number), PatientID=name))
    (tmp_path / "rle.csv").write_text(
        "\n".join(["ImageId,EncodedPixels", *(f"{name},-1" for name in names)]) + "\n"
    )

    assert "alarm: There is no positive image" in remarks(explore(tmp_path, tmp_path / "out"))


def test_a_file_in_train_and_test_is_an_alarm_and_a_number_that_recurs_is_none(
    folders: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    figures = folders(same_person=True)

    assert figures["persons"]["in_several_parts"] == 2  # person 0, and the copied normal
    assert figures["duplicates"]["same_file"]["image_ids"] == [["IM-0900-0001", "IM-0900-0001"]]
    assert (
        "alarm: Pictures in more than one of train, val and test, byte for byte: 1. Those parts "
        "leak." in remarks(figures)
    )
    assert (
        "note: Numbers of persons that recur in more than one of train, val and test: 2."
        in remarks(figures)
    )
    learned_from = load_index(tmp_path / "films", purpose="train")
    assert figures["folds"] == balance_lines(learned_from, split_folds(learned_from, FOLDS, seed=1))
    assert figures["shortcuts"]["width over height"] is None


def test_a_folder_of_nothing_readable_is_told_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("NORMAL", "PNEUMONIA"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpeg").write_bytes(b"no picture")

    assert main(["explore", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "no image can be read; the first one: unsupported_format" in capsys.readouterr().err


def test_a_scan_of_a_jpeg_keeps_its_whole_size(tmp_path: Path) -> None:
    quiet_libraries()
    (tmp_path / "a.jpeg").write_bytes(make_jpeg(chest(512, 640)))

    scan = scan_file(tmp_path / "a.jpeg")

    assert (scan.rows, scan.columns) == (512, 640)
    assert scan.thumb_HW is not None
    assert scan.thumb_HW.shape == (64, 64)


def test_near_pairs_are_found_over_blocks_and_joined() -> None:
    thumbs = np.random.default_rng(1).integers(0, 255, (3000, 64, 64), dtype=np.uint8)
    thumbs[2999] = thumbs[1500] = thumbs[3]
    thumbs[10] = 128  # without contrast it is like nothing
    thumbs[11] = 128

    pairs, total = near_pairs(thumbs)

    assert total == 3
    assert {(pair.one, pair.other) for pair in pairs} == {(3, 1500), (3, 2999), (1500, 2999)}
    assert clusters(pairs) == [[3, 1500, 2999]]


def test_lesions_are_placed_where_their_masks_are() -> None:
    lesions = measure_lesions(
        {"a": ["0 100"], "b": [], "gone": ["0 1"]}, {"a": (100, 200), "b": (100, 200)}
    )

    assert lesions.share_by_image == {"a": 1 / 200}
    assert lesions.frequency_hw[:, 0] == pytest.approx(
        np.full(64, 1 / 3)
    )  # one of the three columns of that cell
    assert lesions.frequency_hw[:, 1:].sum() == 0
