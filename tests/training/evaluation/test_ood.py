import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cxr.bundle import read_bundle
from cxr.preprocess import PreprocessSpec
from tests.factories import chest, make_dicom, make_png
from training.__main__ import main
from training.data.index import read_table, write_table
from training.evaluation.ood import novelty_lines
from training.evaluation.ood_images import (
    OodImage,
    by_kind,
    count_objects,
    find_ood_images,
    make_ood_images,
    turn,
)

SPEC = PreprocessSpec(size=64)


def test_made_images_are_the_same_every_time_and_differ_among_themselves() -> None:
    first, again = (list(make_ood_images(SPEC, 3)) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.image_HW, other.image_HW)
    for kind, places in by_kind(first).items():
        assert len({first[place].image_HW.tobytes() for place in places}) == 3, kind
        assert {first[place].image_HW.shape for place in places} == {(64, 64)}


def test_a_radiograph_is_turned_and_torn() -> None:
    image_HW = chest(64, 64)
    turned = {image.kind: image.image_HW for image in turn(image_HW, 0)}
    np.testing.assert_array_equal(turned["inverted"], 255 - image_HW)
    np.testing.assert_array_equal(turned["turned by 180 degrees"][::-1, ::-1], image_HW)
    assert (turned["torn by broken JPEG data"] != image_HW).any()


def test_a_coarse_jpeg_still_shows_the_same_chest() -> None:
    image_HW = chest(64, 64)
    (coarse,) = (image for image in turn(image_HW, 0) if image.origin == "coarse")
    assert (coarse.image_HW != image_HW).any()
    assert np.corrcoef(coarse.image_HW.ravel(), image_HW.ravel())[0, 1] > 0.9


def test_a_folder_is_read_past_the_scope_check(tmp_path: Path) -> None:
    (tmp_path / "hip.dcm").write_bytes(make_dicom(chest(64, 64), BodyPartExamined="HIP"))
    (tmp_path / "chest.dcm").write_bytes(make_dicom(chest(64, 64)))
    (tmp_path / "slice.dcm").write_bytes(
        make_dicom(chest(64, 64), Modality="CT", BodyPartExamined=None)
    )
    (tmp_path / "dose.dcm").write_bytes(
        make_dicom(chest(64, 64), Modality="RTDOSE", BitsAllocated=32)
    )
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "cat.png").write_bytes(make_png(chest(64, 64)))
    (tmp_path / "torn.png").write_bytes(make_png(chest(64, 64))[:99])
    (tmp_path / "notes.txt").write_text("no image")
    found = list(find_ood_images(tmp_path, SPEC))
    kinds = {(image.kind, image.origin) for image in found if isinstance(image, OodImage)}
    assert kinds == {("cr hip", "found"), ("cr chest", "chest"), ("ct", "found"), ("cats", "found")}
    assert len(found) == 6  # two are no pictures


def objects(*images: NDArray[np.uint8]) -> int:
    return count_objects(images)


def test_copies_of_one_thing_are_counted_once() -> None:
    image_HW = chest(64, 64)
    noisy_HW = np.clip(image_HW + np.random.default_rng(0).normal(0, 5, (64, 64)), 0, 255).astype(
        np.uint8
    )
    assert objects(image_HW, noisy_HW, image_HW // 2) == 1
    assert objects(image_HW, 255 - image_HW, image_HW[::-1].copy()) == 3


@pytest.fixture(scope="module")
def stated(bundle_dir: Path, films_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the bundle that states its novelty gate, as the command writes it."""
    folder = tmp_path_factory.mktemp("stated")
    bundle = shutil.copytree(bundle_dir, folder / "bundle")
    (folder / "foreign").mkdir()
    (folder / "foreign" / "hip.dcm").write_bytes(make_dicom(chest(64, 64), BodyPartExamined="HIP"))
    words = [
        "--data",
        str(films_dir),
        "--out",
        str(folder / "out"),
        "--foreign",
        str(folder / "foreign"),
        "--state",
    ]
    assert main(["evaluate", str(bundle), *words]) == 0
    return folder


def test_the_gate_is_measured_against_radiographs_that_the_model_had_not_seen(stated: Path) -> None:
    metrics = json.loads((stated / "out" / "metrics.json").read_text())
    gate = metrics["novelty_gate"]
    assert gate["radiographs"]["n"] == metrics["unseen"]["n"]
    assert gate["kinds"]["cr hip"]["n_objects"] == 1
    assert gate["kinds"]["blank"]["flagged"] == 1.0
    assert set(gate["origins"]) == {
        "all made",
        "all turned",
        "all found, out of scope by their header",
    }
    for figures in gate["kinds"].values():
        assert 0 <= figures["auroc"] <= 1
        assert figures["novel"] <= figures["warned"] <= figures["flagged"] <= 1


def test_the_bundle_states_the_figures_and_is_the_same_model(
    stated: Path, bundle_dir: Path
) -> None:
    before, after = read_bundle(bundle_dir), read_bundle(stated / "bundle")
    gate = after.manifest.metrics.novelty_gate
    assert gate is not None
    assert after.sha256 == before.sha256
    assert after.manifest.model_copy(update={"metrics": before.manifest.metrics}) == before.manifest
    assert json.loads((stated / "bundle" / "metrics.json").read_text())["novelty_gate"] == (
        gate.as_json()
    )
    assert all(line in after.card for line in novelty_lines(gate))


def test_where_every_image_was_learned_from_the_distances_of_the_folds_stand_in(
    bundle_dir: Path, films_dir: Path, tmp_path: Path
) -> None:
    bundle = shutil.copytree(bundle_dir, tmp_path / "bundle")
    lines = read_table(bundle / "splits.csv")
    beyond = str(2 * read_bundle(bundle).manifest.novelty.warn)
    told = [[*list(line.values())[:5], "yes", beyond] for line in lines]
    write_table(bundle / "splits.csv", list(lines[0]), told)

    assert (
        main(
            [
                "evaluate",
                str(bundle),
                "--data",
                str(films_dir),
                "--out",
                str(tmp_path / "out"),
                "--novelty",
            ]
        )
        == 0
    )

    gate = json.loads((tmp_path / "out" / "metrics.json").read_text())["novelty_gate"]
    assert "the network of its fold" in gate["basis"]
    assert gate["radiographs"]["warned"] == 1.0


def test_a_bundle_is_evaluated_without_the_gate_unless_it_is_asked_for(
    bundle_dir: Path, films_dir: Path, tmp_path: Path
) -> None:
    assert (
        main(["evaluate", str(bundle_dir), "--data", str(films_dir), "--out", str(tmp_path)]) == 0
    )
    assert "novelty_gate" not in json.loads((tmp_path / "metrics.json").read_text())
