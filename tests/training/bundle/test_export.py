import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cxr.bundle import file_sha256, read_bundle
from cxr.errors import BundleError
from cxr.graph import OnnxGraph, open_graph
from cxr.metadata_features import COLUMNS, encode_metadata_features
from cxr.radiograph import Metadata
from training.bundle.export import export
from training.bundle.held_out import predict_held_out
from training.bundle.release_gates.gate import ExportRefused
from training.bundle.release_gates.graph_gates import edge_images, pool
from training.data.index import read_table
from training.fit.run_dir import load_run


def test_an_exported_bundle_opens_and_answers_its_golden_inputs(bundle_dir: Path) -> None:
    bundle = read_bundle(bundle_dir)
    graph = open_graph(bundle)
    assert graph.engine == "onnxruntime-cpu"
    assert (bundle.manifest.model, bundle.manifest.version, bundle.manifest.input_size) == (
        "patch",
        1,
        64,
    )
    assert bundle.manifest.operating_points == ("balanced", "youden", "screen", "rule_in")


def test_a_bare_graph_file_explains_itself(bundle_dir: Path) -> None:
    bundle = read_bundle(bundle_dir)
    properties = OnnxGraph(bundle.graph_path).properties
    assert properties["finding"] == bundle.manifest.finding
    assert (
        json.loads(properties["readings"])["plain"]["thresholds"]
        == bundle.manifest.readings["plain"].thresholds
    )
    assert json.loads(properties["cam"]) == {"pool": "mean", "bias": bundle.manifest.cam.bias}


def test_a_network_that_reads_age_sex_and_view_becomes_a_bundle_that_does(
    fused_bundle_dir: Path,
) -> None:
    bundle = read_bundle(fused_bundle_dir)
    graph = open_graph(bundle)
    image_NHW = edge_images(64)[:2]
    unknown, told = (
        graph.run(image_NHW),
        graph.run(image_NHW, encode_metadata_features([Metadata(70.0, "F", "AP"), Metadata()])),
    )

    assert bundle.manifest.metadata == COLUMNS
    assert json.loads(OnnxGraph(bundle.graph_path).properties["metadata"]) == list(COLUMNS)
    assert told.logit_N[0] != pytest.approx(unknown.logit_N[0], abs=1e-3)
    assert told.logit_N[1] == pytest.approx(unknown.logit_N[1], abs=1e-5)
    np.testing.assert_allclose(
        pool(told.cam_Nhw, bundle.manifest.cam, told.bias_N), told.logit_N, atol=1e-4
    )
    assert bundle.manifest.graphs[0].parity.max_cam_identity_error < 1e-5
    assert "reads age, sex and view" in bundle.card


def test_a_graph_that_reads_other_metadata_than_its_bundle_says_is_not_opened(
    fused_bundle_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "store" / "fused" / "1"
    shutil.copytree(fused_bundle_dir, path)
    facts = json.loads((path / "bundle.json").read_text())
    (path / "bundle.json").write_text(json.dumps(facts | {"metadata": []}))

    with pytest.raises(BundleError, match="metadata"):
        open_graph(read_bundle(path))


def test_the_figures_stand_on_the_held_out_images_alone(bundle_dir: Path, run_dir: Path) -> None:
    run, metrics = load_run(run_dir), json.loads((bundle_dir / "metrics.json").read_text())
    assert metrics["n"] == metrics["tta"]["n"] == len(run.held_out(0))
    assert metrics["basis"].startswith("one held-out fold of 2 of a split by person: ")
    assert metrics["auroc"] > 0.7
    assert metrics["default_operating_point"] == "balanced"
    assert metrics == read_bundle(bundle_dir).manifest.metrics.as_json()


def test_the_figures_say_what_shifted_copies_cost(bundle_dir: Path) -> None:
    metrics = json.loads((bundle_dir / "metrics.json").read_text())
    corruptions = metrics["stressed"]["stresses"]
    assert corruptions["none"]["auroc"] == pytest.approx(metrics["auroc"])
    assert (
        corruptions["none"]["sensitivity"] == metrics["operating_points"]["balanced"]["sensitivity"]
    )
    assert metrics["stressed"]["auroc"] == pytest.approx(
        np.mean([one["auroc"] for one in corruptions.values()])
    )
    assert len({one["auroc"] for one in corruptions.values()}) > 3


def test_balanced_is_raw_logit_zero_seen_through_each_readings_calibration(
    bundle_dir: Path,
) -> None:
    for profile in read_bundle(bundle_dir).manifest.readings.values():
        assert profile.thresholds["balanced"] == profile.calibration.probability(0.0)


def test_the_split_in_the_bundle_tells_what_the_model_learned_from(
    bundle_dir: Path, run_dir: Path
) -> None:
    run, lines = load_run(run_dir), read_table(bundle_dir / "splits.csv")
    unseen = {line["image_id"] for line in lines if line["fitted"] == "no"}
    assert unseen == {run.index.rows[i].image_id for i in run.held_out(0)}
    assert read_bundle(bundle_dir).manifest.training_data.splits_sha256 == file_sha256(
        bundle_dir / "splits.csv"
    )
    assert {line["image_id"] for line in lines if line["novelty"]} == unseen


def test_no_file_of_the_bundle_names_a_folder_of_this_machine(
    bundle_dir: Path, films_dir: Path, run_dir: Path
) -> None:
    for path in bundle_dir.iterdir():
        for folder in (films_dir, run_dir, Path.cwd(), Path.home()):
            assert str(folder).encode() not in path.read_bytes(), path.name
    assert (
        f"--data {films_dir.name} --out {run_dir.name}" in read_bundle(bundle_dir).manifest.command
    )


def test_the_store_is_a_triton_model_repository(bundle_dir: Path) -> None:
    config = (bundle_dir.parent / "config.pbtxt").read_text()
    assert config.splitlines() == [
        'name: "patch"',
        'backend: "onnxruntime"',
        "max_batch_size: 64",
        "dynamic_batching { }",
    ]


def test_a_version_is_never_written_twice(bundle_dir: Path, run_dir: Path) -> None:
    with pytest.raises(BundleError, match="exists already"):
        export(run_dir, bundle_dir.parent.parent, "patch", 1)


def test_weights_that_answer_nan_are_refused_and_leave_nothing(
    run_dir: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "run"
    shutil.copytree(run_dir, broken)
    weights = load_file(broken / "final" / "model.safetensors")
    weights["head.weight"] = weights["head.weight"] * np.float32(np.nan)
    save_file(weights, broken / "final" / "model.safetensors")
    with pytest.raises(ExportRefused, match="logit against torch"):
        export(broken, tmp_path / "store", "patch", 1)
    assert list((tmp_path / "store").rglob("*.*")) == []


def test_cross_validation_lets_each_image_be_predicted_by_the_network_that_never_saw_it(
    folds_run_dir: Path, folds_bundle_dir: Path, bundle_dir: Path
) -> None:
    run, bundle = load_run(folds_run_dir), read_bundle(folds_bundle_dir)
    any_graph = read_bundle(bundle_dir).graph_path
    held_out = predict_held_out(run, dict.fromkeys(run.held_out_folds, any_graph))
    assert sorted(held_out.position_N) == list(range(len(run.index)))
    assert held_out.view_logit_NK.shape == (len(run.index), 2)
    assert held_out.label_N.tolist() == run.index.label_N[held_out.position_N].tolist()
    assert bundle.manifest.metrics.n == len(run.index)
    assert (bundle.manifest.metrics.auroc or 0.0) > 0.7
    assert all(line["novelty"] for line in read_table(folds_bundle_dir / "splits.csv"))
