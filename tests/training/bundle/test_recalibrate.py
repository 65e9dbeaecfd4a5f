"""A new version of a bundle: the same network, new probabilities, a leaner graph."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from cxr.bundle import read_bundle
from cxr.graph import OnnxGraph
from training.bundle.lean_graph import split_wide_pools
from training.bundle.recalibrate import recalibrate
from training.data import DataError


@pytest.fixture(scope="module")
def renewed(bundle_dir: Path, films_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("renewed")
    return recalibrate(bundle_dir, films_dir, store, 7, "python -m training recalibrate X")


def test_the_network_answers_as_before(bundle_dir: Path, renewed: Path) -> None:
    old, new = read_bundle(bundle_dir), read_bundle(renewed)
    size = old.manifest.input_size
    image_NHW = np.random.default_rng(1).integers(0, 256, (2, size, size), dtype=np.uint8)
    one, other = (OnnxGraph(bundle.graph_path).run(image_NHW) for bundle in (old, new))

    np.testing.assert_allclose(one.logit_N, other.logit_N, rtol=0, atol=1e-5)
    assert new.manifest.version == 7
    assert new.manifest.command.endswith("recalibrate X")


def test_its_figures_are_of_the_held_out_images_alone(bundle_dir: Path, renewed: Path) -> None:
    old, new = (read_bundle(path).manifest.metrics for path in (bundle_dir, renewed))

    assert new.n == old.n
    assert new.auroc == pytest.approx(old.auroc)
    assert new.calibration.slope == pytest.approx(old.calibration.slope, abs=1e-4)
    assert "this version has the same network" in new.basis


def test_a_folder_that_was_learned_from_is_no_ground(
    bundle_dir: Path, tmp_path: Path, films_dir: Path
) -> None:
    learned = read_bundle(bundle_dir).path / "splits.csv"
    fitted = {line.split(",")[0] for line in learned.read_text().splitlines() if ",yes," in line}
    for path in (films_dir / "train").rglob("*.png"):
        if path.stem in fitted:
            copy = tmp_path / "data" / path.parent.name / path.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())

    with pytest.raises(DataError, match="no held-out images"):
        recalibrate(bundle_dir, tmp_path / "data", tmp_path / "store", 7, "command")


@pytest.mark.parametrize(("count_padding", "split"), [(0, 1), (1, 0)])
def test_a_wide_mean_is_taken_by_columns_and_rows_if_padding_does_not_count(
    tmp_path: Path, count_padding: int, split: int
) -> None:
    pool = helper.make_node(
        "AveragePool", ["image"], ["mean"],
        kernel_shape=[9, 9], pads=[4, 4, 4, 4], count_include_pad=count_padding,
    )  # fmt: skip
    shape = [1, 1, 24, 20]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "mean")
    ]
    graph = helper.make_graph([pool], "pool", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "wide.onnx")

    assert split_wide_pools(tmp_path / "wide.onnx", tmp_path / "lean.onnx") == split

    image = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    wide, lean = (_run(tmp_path / f"{name}.onnx", image) for name in ("wide", "lean"))
    np.testing.assert_allclose(wide, lean, rtol=0, atol=1e-5)


def _run(path: Path, image: NDArray[np.float32]) -> NDArray[np.float32]:
    (mean,) = ReferenceEvaluator(str(path)).run(None, {"image": image})
    return np.asarray(mean)
