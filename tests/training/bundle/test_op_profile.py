from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from training.bundle.op_profile import profile, profile_lines

SIZE = 96


def graph_with_pool(path: Path, kernel: int) -> Path:
    """Write a graph of one convolution and one average pool of a given width."""
    weight = numpy_helper.from_array(np.ones((16, 16, 3, 3), np.float32), "weight")
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["float", "axis"], ["one"]),
        helper.make_node("Expand", ["one", "shape"], ["wide"]),
        helper.make_node("Conv", ["wide", "weight"], ["features"], pads=[1, 1, 1, 1]),
        helper.make_node(
            "AveragePool",
            ["features"],
            ["logit"],
            kernel_shape=[kernel, kernel],
            strides=[1, 1],
            pads=4 * [kernel // 2],
        ),
    ]
    constants = [
        weight,
        numpy_helper.from_array(np.array([1]), "axis"),
        numpy_helper.from_array(np.array([1, 16, SIZE, SIZE]), "shape"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, SIZE, SIZE])
    logit = helper.make_tensor_value_info("logit", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "pool", [image], [logit], constants)
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def test_a_wide_pool_is_warned_of_and_a_convolution_is_not(tmp_path: Path) -> None:
    times = profile(graph_with_pool(tmp_path / "wide.onnx", 25), SIZE)
    lines = list(profile_lines(times))

    assert times[0].operator == "AveragePool"
    assert sum(time.share for time in times) == pytest.approx(1.0)
    assert any(line.startswith("WARNING: AveragePool takes") for line in lines)
    assert not any("WARNING: Conv" in line for line in lines)


def test_nothing_of_the_profile_is_left_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = graph_with_pool(tmp_path / "graph.onnx", 3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    profile(graph, SIZE)

    assert list(tmp_path.rglob("*.json")) == []
