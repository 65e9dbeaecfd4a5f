"""The gates, on a network of forty weights that keeps the graph's contract."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from cxr.graph import OnnxGraph
from cxr.interpret import Cam, Outputs
from training.bundle.onnx_export import describe, trace
from training.bundle.release_gates.bundle_gates import privacy_gate
from training.bundle.release_gates.gate import ExportRefused, ReleaseGate, require
from training.bundle.release_gates.graph_gates import (
    Runner,
    edge_images,
    file_gates,
    measure_parity,
    parity_gates,
    pool,
)

CAM = Cam(pool="mean", bias=0.25)


class Tiny(torch.nn.Module):
    """One convolution, then a map, its mean and a distance."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = torch.nn.Conv2d(1, 4, 3, stride=8)
        self.head = torch.nn.Conv2d(4, 1, 1, bias=False)

    def forward(self, image_NHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        feature_NChw = self.stem(image_NHW[:, None].float() / 255).relu()
        cam_Nhw = self.head(feature_NChw)[:, 0]
        return (
            cam_Nhw.mean(dim=(1, 2)) + CAM.bias,
            cam_Nhw,
            feature_NChw.mean(dim=(2, 3)).square().sum(dim=1).sqrt(),
        )


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    trace(Tiny(), 32, path)
    return path


@pytest.fixture(scope="module")
def network() -> Runner:
    module = Tiny().eval()

    def run(batch_NHW: np.ndarray, _: np.ndarray | None) -> Outputs:
        with torch.inference_mode():
            return Outputs(*(output.numpy() for output in module(torch.from_numpy(batch_NHW))))

    return run


@pytest.fixture
def altered(tiny_path: Path, tmp_path: Path) -> Callable[[Callable[[onnx.ModelProto], None]], Path]:
    """Write the graph again with a change."""

    def change(edit: Callable[[onnx.ModelProto], None]) -> Path:
        model = onnx.load(tiny_path)
        edit(model)
        onnx.save_model(model, tmp_path / "model.onnx")
        return tmp_path / "model.onnx"

    return change


def failed(gates: list[ReleaseGate]) -> list[str]:
    return [gate.name for gate in gates if not gate.holds]


def test_a_faithful_graph_passes_every_gate(tiny_path: Path, network: Runner) -> None:
    parity = measure_parity(network, OnnxGraph(tiny_path), edge_images(32), CAM)
    assert failed([*file_gates(tiny_path), *parity_gates(parity)]) == []
    assert parity.images == 8


def test_a_wrong_bias_breaks_the_identity_of_the_map(tiny_path: Path, network: Runner) -> None:
    parity = measure_parity(
        network, OnnxGraph(tiny_path), edge_images(32), Cam(pool="mean", bias=0.26)
    )
    assert parity.max_cam_identity_error == pytest.approx(0.01, rel=0.01)
    assert failed(list(parity_gates(parity))) == ["pool(cam) + bias against logit (relative)"]


def test_an_altered_weight_fails_the_comparison_with_torch(
    altered: Callable[[Callable[[onnx.ModelProto], None]], Path], network: Runner
) -> None:
    def nudge(model: onnx.ModelProto) -> None:
        stem = next(
            tensor for tensor in model.graph.initializer if list(tensor.dims) == [4, 1, 3, 3]
        )
        stem.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(stem) * 1.01, stem.name))

    parity = measure_parity(network, OnnxGraph(altered(nudge)), edge_images(32), CAM)
    assert "logit against torch, batches 1, 2, 7, 64" in failed(list(parity_gates(parity)))


def test_a_nan_fails(tiny_path: Path) -> None:
    def nan(batch_NHW: np.ndarray, _: np.ndarray | None) -> Outputs:
        outputs = OnnxGraph(tiny_path).run(batch_NHW)
        return Outputs(outputs.logit_N * np.float32(np.nan), outputs.cam_Nhw, outputs.novelty_N)

    parity = measure_parity(nan, OnnxGraph(tiny_path), edge_images(32), CAM)
    assert failed(list(parity_gates(parity))) == ["logit against torch, batches 1, 2, 7, 64"]


def test_an_operator_of_another_domain_fails(
    altered: Callable[[Callable[[onnx.ModelProto], None]], Path],
) -> None:
    def foreign(model: onnx.ModelProto) -> None:
        model.graph.node[0].domain = "com.example"
        model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))

    assert "only ai.onnx operators" in failed(list(file_gates(altered(foreign))))


def test_another_name_of_an_output_fails(
    altered: Callable[[Callable[[onnx.ModelProto], None]], Path],
) -> None:
    def rename(model: onnx.ModelProto) -> None:
        model.graph.output[0].name = "score"

    assert "inputs and outputs" in failed(list(file_gates(altered(rename))))


def test_a_broken_graph_fails_the_checker(
    altered: Callable[[Callable[[onnx.ModelProto], None]], Path],
) -> None:
    def cut(model: onnx.ModelProto) -> None:
        model.graph.node[3].input[0] = "nowhere"

    assert "onnx checker and strict shape inference" in failed(list(file_gates(altered(cut))))


def test_weights_outside_the_file_fail(tiny_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save_model(
        onnx.load(tiny_path),
        path,
        save_as_external_data=True,
        location="model.data",
        size_threshold=0,
    )
    assert "one file" in failed(list(file_gates(path)))


def test_a_file_over_the_size_that_is_accepted_fails(tiny_path: Path) -> None:
    size = tiny_path.stat().st_size
    assert "file size" not in failed(list(file_gates(tiny_path, size)))
    assert "file size" in failed(list(file_gates(tiny_path, size - 1)))


def test_a_file_that_names_a_local_folder_fails(tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text('{"command": "train --data /srv/someone/radiographs"}')
    (tmp_path / "metrics.json").write_text("{}")
    gate = privacy_gate(tmp_path, {"/srv/someone"})
    assert not gate.holds
    assert gate.figure == "local folders named in bundle.json"
    assert privacy_gate(tmp_path, {"/srv/another"}).holds


def test_refusal_names_the_gates_that_failed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExportRefused, match="one file: 2 tensors outside it"):
        require(
            [
                ReleaseGate("opset", "20", True),
                ReleaseGate("one file", "2 tensors outside it", False),
            ]
        )
    assert "ok    opset: 20" in capsys.readouterr().out


def test_a_traced_file_says_nothing_of_the_source(tiny_path: Path) -> None:
    content = tiny_path.read_bytes()
    assert b"site-packages" not in content
    assert str(Path.cwd()).encode() not in content


def test_properties_travel_in_the_file(tiny_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_path.read_bytes())
    describe(path, {"finding": "pneumothorax", "input_size": "32"})
    assert OnnxGraph(path).properties == {"finding": "pneumothorax", "input_size": "32"}


def test_a_map_pools_by_mean_or_by_the_log_of_the_mean_exponential() -> None:
    cam_Nhw = np.log(np.array([[[1.0, 2.0], [3.0, 6.0]]], np.float32))
    assert pool(cam_Nhw, Cam(pool="mean", bias=1.0)) == pytest.approx([np.log(36) / 4 + 1])
    assert pool(cam_Nhw, Cam(pool="lse", bias=1.0)) == pytest.approx([np.log(3) + 1])
