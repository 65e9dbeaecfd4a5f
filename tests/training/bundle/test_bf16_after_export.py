"""`training evaluate --fast`: what bf16 costs an exported bundle, and what is then stated."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from cxr.bundle import read_bundle
from cxr.manifest import FastPrecision
from cxr.metrics_schema import PrecisionFigures
from training.__main__ import main
from training.bundle.add_figures import state_fast
from training.bundle.bf16 import NotMeasurable, openvino_is_installed
from training.bundle.bf16_after_export import judge_bundle, read_unseen
from training.bundle.release_gates.gate import TOLERANCES
from training.evaluation.labelled_images import roles
from training.hardware import bf16_instructions

ALLOWED = FastPrecision(
    engine="openvino-cpu",
    precision="bf16",
    images=200,
    auroc_change=0.001,
    flips=0.005,
    instructions="avx512_bf16",
    tool="made",
)
CAN_MEASURE = bf16_instructions() is not None and openvino_is_installed()


@pytest.fixture
def copy(bundle_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_dir, tmp_path / "bundle"))


def test_what_is_allowed_is_stated_with_its_tolerance_and_nothing_else_changes(
    copy: Path, bundle_dir: Path
) -> None:
    state_fast(copy, PrecisionFigures(allowed=True, refused_for=[]), ALLOWED)
    before, after = read_bundle(bundle_dir), read_bundle(copy)
    assert after.manifest.fast == ALLOWED
    assert after.manifest.metrics.as_json()["precisions"]["bf16"] == {
        "allowed": True,
        "refused_for": [],
    }
    assert after.golden.tolerances == {
        **before.golden.tolerances,
        "openvino-cpu/bf16": TOLERANCES["openvino-cpu/bf16"],
    }
    np.testing.assert_array_equal(after.golden.cam_Nhw, before.golden.cam_Nhw)
    assert after.manifest.graphs == before.manifest.graphs
    assert after.manifest.readings == before.manifest.readings


def test_what_is_refused_is_stated_and_takes_an_earlier_permission_back(copy: Path) -> None:
    state_fast(copy, PrecisionFigures(allowed=True, refused_for=[]), ALLOWED)
    state_fast(copy, PrecisionFigures(allowed=False, refused_for=["made"]), None)
    after = read_bundle(copy).manifest
    assert after.fast is None
    assert "made" in (copy / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_what_the_bundle_learned_from_is_left_out(bundle_dir: Path, films_dir: Path) -> None:
    bundle = read_bundle(bundle_dir)
    unseen = read_unseen(bundle, films_dir, min_images=10)
    assert (
        len(unseen) == bundle.manifest.metrics.n == list(roles(bundle).values()).count("calibrated")
    )
    assert {image_HW.shape for image_HW, _, _ in unseen} == {
        (bundle.manifest.input_size, bundle.manifest.input_size)
    }


def test_too_few_images_judge_nothing(bundle_dir: Path, films_dir: Path) -> None:
    with pytest.raises(NotMeasurable, match="100 images of both classes"):
        read_unseen(read_bundle(bundle_dir), films_dir)


def test_a_bundle_that_learned_from_all_films_is_sent_back_to_export(
    folds_bundle_dir: Path, films_dir: Path
) -> None:
    with pytest.raises(NotMeasurable, match="exported anew"):
        read_unseen(read_bundle(folds_bundle_dir), films_dir)


def test_a_bundle_that_does_not_say_what_it_learned_from_judges_nothing(
    copy: Path, films_dir: Path
) -> None:
    (copy / "splits.csv").unlink()
    with pytest.raises(NotMeasurable, match="says what it learned from"):
        read_unseen(read_bundle(copy), films_dir)


def test_a_processor_with_bf16_measures_and_another_says_so_before_it_begins(
    bundle_dir: Path, films_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if CAN_MEASURE:
        verdict, fast = judge_bundle(bundle_dir, films_dir, min_images=10)
        assert verdict.cost is not None
        assert verdict.cost.images == read_bundle(bundle_dir).manifest.metrics.n
        assert (fast is not None) == verdict.holds
        return
    out = tmp_path / "out"
    assert (
        main(["evaluate", str(bundle_dir), "--data", str(films_dir), "--out", str(out), "--fast"])
        == 1
    )
    assert not out.exists()
    assert "bf16" in capsys.readouterr().err or not openvino_is_installed()
