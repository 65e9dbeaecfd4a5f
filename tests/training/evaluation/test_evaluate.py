import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from cxr.bundle import read_bundle
from cxr.manifest import write_manifest
from tests.factories import chest, make_png
from tests.server import running_server
from training.__main__ import main
from training.data.index import read_table
from training.evaluation.evaluate import evaluate
from training.stats.metrics import auroc

NO_TORCH = """
import sys
from pathlib import Path
from training.evaluation.evaluate import evaluate
evaluate(*map(Path, sys.argv[1:4]))
for name in ("torch", "monai", "onnx", "safetensors"):
    assert name not in sys.modules, name
"""


@pytest.fixture(scope="module")
def evaluated(bundle_dir: Path, films_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluated")
    evaluate(bundle_dir, films_dir, out)
    return out


def figures(out: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return loaded


def test_evaluating_needs_no_torch(bundle_dir: Path, films_dir: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", NO_TORCH, str(bundle_dir), str(films_dir), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_unseen_part_reproduces_the_bundles_own_figures(
    evaluated: Path, bundle_dir: Path
) -> None:
    unseen = figures(evaluated)["unseen"]
    own = read_bundle(bundle_dir).manifest.metrics.as_json()
    for key in ("n", "n_positive", "n_person_groups"):
        assert unseen[key] == own[key]
    for key in ("auroc", "auroc_ci95", "average_precision", "brier", "ece"):
        assert unseen[key] == pytest.approx(own[key], abs=1e-4)
    for name, point in unseen["operating_points"].items():
        assert point["confusion"] == own["operating_points"][name]["confusion"]


def test_images_that_the_model_learned_from_are_counted_and_called_out(
    evaluated: Path,
    bundle_dir: Path,
    films_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    metrics = evaluate(bundle_dir, films_dir, tmp_path)
    assert metrics.n == 60
    assert metrics.unseen is not None
    assert metrics.n_seen + metrics.unseen.n == 60
    assert metrics.n_calibrated == metrics.unseen.n
    assert (
        f"WARNING: the model LEARNED FROM {metrics.n_seen} of these 60 images"
        in capsys.readouterr().out
    )
    assert (
        f"The model learned from {metrics.n_seen} of these 60 images"
        in (evaluated / "report.html").read_text()
    )


def test_images_that_are_all_new_have_no_unseen_part(bundle_dir: Path, tmp_path: Path) -> None:
    copy_unseen(bundle_dir, tmp_path)
    metrics = evaluate(bundle_dir, tmp_path / "films", tmp_path / "out")
    assert metrics.n_seen == 0
    assert "unseen" not in figures(tmp_path / "out")
    assert "WARNING" not in (tmp_path / "out" / "report.html").read_text()


def copy_unseen(bundle_dir: Path, folder: Path) -> None:
    """Make class folders of two new radiographs."""
    from cxr.phantom import draw_phantom

    for name, seed in (("NORMAL/a.png", 901), ("PNEUMONIA/person1_virus_2.png", 902)):
        path = folder / "films" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(make_png(draw_phantom(96, 96, seed=seed)))


def test_a_folder_that_is_labelled_for_something_else_is_refused(
    bundle_dir: Path, films_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle_dir, copy)
    manifest = read_bundle(copy).manifest
    siim = {**manifest.recipe, "data_layout": "siim"}
    write_manifest(copy / "bundle.json", manifest.model_copy(update={"recipe": siim}))

    assert (
        main(["evaluate", str(copy), "--data", str(films_dir), "--out", str(tmp_path / "out")]) == 1
    )
    assert "its labels mean something else" in capsys.readouterr().err


def test_a_folder_of_nothing_readable_and_a_foreign_one_that_is_not_there_are_refused(
    bundle_dir: Path, films_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("NORMAL", "PNEUMONIA"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "a.png").write_bytes(b"no picture")
    words = ["evaluate", str(bundle_dir), "--out", str(tmp_path / "out")]

    assert main([*words, "--data", str(tmp_path / "data")]) == 1
    assert "no image can be read" in capsys.readouterr().err
    assert main([*words, "--data", str(films_dir), "--foreign", str(tmp_path / "nowhere")]) == 1
    assert "nowhere is no folder" in capsys.readouterr().err


def test_tta_averages_the_views_of_the_bundles_policy(
    evaluated: Path, bundle_dir: Path, films_dir: Path, tmp_path: Path
) -> None:
    metrics = evaluate(bundle_dir, films_dir, tmp_path, tta=True)
    bundle = read_bundle(bundle_dir)
    assert metrics.reading == bundle.manifest.tta_policy
    assert metrics.unseen is not None
    assert metrics.unseen.auroc == pytest.approx(bundle.manifest.metrics.tta.auroc, abs=1e-6)
    assert all(line["spread"] for line in read_table(tmp_path / "predictions.csv"))
    assert not any(line["spread"] for line in read_table(evaluated / "predictions.csv"))


def test_what_cannot_be_read_is_listed_with_its_code_and_counted_nowhere(
    bundle_dir: Path, films_dir: Path, tmp_path: Path
) -> None:
    radiographs = tmp_path / "films"
    shutil.copytree(films_dir, radiographs)
    whole = next((radiographs / "train" / "NORMAL").glob("*.png")).read_bytes()
    (radiographs / "train" / "NORMAL" / "IM-9999-0001.png").write_bytes(whole[: len(whole) // 2])
    (radiographs / "train" / "NORMAL" / "IM-9999-0002.jpeg").write_bytes(b"no picture at all")
    metrics = evaluate(bundle_dir, radiographs, tmp_path / "out")
    assert metrics.n == 60
    assert {item.path.rpartition("/")[2]: item.code for item in metrics.unreadable} == {
        "IM-9999-0001.png": "corrupt_image",
        "IM-9999-0002.jpeg": "unsupported_format",
    }
    assert "IM-9999-0002" in (tmp_path / "out" / "report.html").read_text()


def test_every_image_has_a_line_that_the_labels_follow_from(
    evaluated: Path, bundle_dir: Path
) -> None:
    lines = read_table(evaluated / "predictions.csv")
    assert len(lines) == 60
    calibration = read_bundle(bundle_dir).manifest.readings["plain"].calibration
    for line in lines:
        assert float(line["probability"]) == calibration.probability(float(line["logit"]))
    point = figures(evaluated)["operating_points"]["balanced"]
    called = sum(float(line["probability"]) >= point["threshold"] for line in lines)
    assert called == point["confusion"][0][1] + point["confusion"][1][1]


def test_the_gallery_shows_films_of_each_kind_with_their_evidence(evaluated: Path) -> None:
    metrics, page = figures(evaluated), (evaluated / "report.html").read_text()
    assert {"right-positive", "right-negative", "uncertain"} <= {
        picture["kind"] for picture in metrics["gallery"]
    }
    for picture in metrics["gallery"]:
        with Image.open(evaluated / picture["file"]) as radiograph:
            assert (
                radiograph.width == 2 * radiograph.height
            )  # the radiographs are square, and beside each is its map
        assert picture["image_id"] in page
    assert page.count("data:image/jpeg;base64,") == len(metrics["gallery"])


def test_with_tta_both_readings_stand_side_by_side(
    bundle_dir: Path, films_dir: Path, tmp_path: Path
) -> None:
    effect = evaluate(bundle_dir, films_dir, tmp_path, tta=True).tta_effect
    assert effect is not None
    rows = read_table(tmp_path / "predictions.csv")
    unseen = [row for row in rows if row["role"] != "fitted"]
    label_N = np.array([int(row["label"]) for row in unseen])
    for profile, column in (("plain", "plain_logit"), ("tta", "logit")):
        assert getattr(effect.measures["auroc"], profile) == auroc(
            label_N, np.array([float(row[column]) for row in unseen])
        )
    assert "With and without test-time augmentation" in (tmp_path / "report.html").read_text()


@pytest.mark.timeout(400)  # it starts the service
def test_a_file_has_the_probability_and_the_warnings_that_the_service_answers_with(
    bundle_dir: Path, tmp_path: Path
) -> None:
    chest_HW = chest(256, 256)
    pixels_of = {
        "NORMAL/IM-0001-0001.png": chest_HW,
        "NORMAL/IM-0002-0001.png": np.full_like(chest_HW, 130),
        "PNEUMONIA/person1_virus_1.png": 255 - chest_HW,
        "PNEUMONIA/person2_virus_2.png": np.ascontiguousarray(np.rot90(chest_HW)),
    }
    for name, pixels_HW in pixels_of.items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_png(pixels_HW))

    evaluate(bundle_dir, tmp_path / "data", tmp_path / "out")
    lines = {line["file"]: line for line in read_table(tmp_path / "out" / "predictions.csv")}
    with running_server(bundle_dir.parents[1], tmp_path / "log", default_model="patch") as server:
        answers = {
            name: httpx.post(
                f"{server.url}/predict", content=(tmp_path / "data" / name).read_bytes()
            ).json()
            for name in pixels_of
        }

    codes = {name: [each["code"] for each in answers[name]["warnings"]] for name in pixels_of}
    assert {name: line["warnings"].split() for name, line in lines.items()} == codes
    told = {code for found in codes.values() for code in found}
    assert {"few_greys", "looks_inverted", "looks_unlike_a_chest"} <= told
    for name, answer in answers.items():
        assert answer["probability"] == pytest.approx(float(lines[name]["probability"]), abs=1e-4)
