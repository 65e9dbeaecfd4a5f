"""Models are divided into what answers and what only draws the map; together they answer as one."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from cxr.errors import GraphError
from cxr.graph import Graph, OnnxGraph, OpenVinoGraph, Runtime
from cxr.graph.map_part import divide
from tests.bundles import BIAS, graph_with_own_map, made_graph
from tests.factories import chest

IMAGES_NHW = np.stack([chest(32, 32, seed=seed) for seed in range(5)])


def open_model(model: onnx.ModelProto, runtime: Runtime) -> Graph:
    if runtime.engine == "openvino":
        pytest.importorskip("openvino", reason="the openvino extra is not installed")
        return OpenVinoGraph(model.SerializeToString(), runtime)
    return OnnxGraph(model.SerializeToString(), runtime)


def test_both_parts_are_sound_models_and_share_no_work() -> None:
    parts = divide(graph_with_own_map().SerializeToString())

    assert parts is not None
    answer, drawing = (onnx.load_from_string(part) for part in parts)
    for model in (answer, drawing):
        onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in answer.graph.input] == ["image"]
    assert [value.name for value in answer.graph.output] == ["logit", "novelty"]
    assert [value.name for value in drawing.graph.input] == ["image", "logit"]
    assert [value.name for value in drawing.graph.output] == ["cam"]
    assert {tensor.name for tensor in answer.graph.initializer} == {"axes", "gain", "constant"}
    common = {node.output[0] for node in answer.graph.node} & {
        node.output[0] for node in drawing.graph.node
    }
    assert common == {"grey"}


@pytest.mark.parametrize(
    "runtime",
    [Runtime(), Runtime(buckets=(4, 8)), Runtime(engine="openvino", run_slots=2)],
    ids=["as they are", "filled up", "openvino"],
)
def test_a_divided_model_answers_as_the_whole_one(runtime: Runtime) -> None:
    model = graph_with_own_map()
    whole = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    graph = open_model(model, runtime)

    for count in (5, 1, 3):
        images_NHW = IMAGES_NHW[-count:]
        logit_N, cam_Nhw, novelty_N = whole.run(None, {"image": images_NHW})
        outputs = graph.run(images_NHW)
        np.testing.assert_allclose(outputs.logit_N, logit_N, atol=1e-5)
        np.testing.assert_allclose(outputs.cam_Nhw, cam_Nhw, atol=1e-5)
        np.testing.assert_allclose(outputs.novelty_N, novelty_N, atol=1e-4)
        np.testing.assert_allclose(
            outputs.cam_Nhw.mean(axis=(1, 2)) + BIAS, outputs.logit_N, atol=1e-5
        )


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("model", [graph_with_own_map(), made_graph(32)], ids=["divided", "whole"])
def test_a_run_without_a_map_gives_the_other_outputs(model: onnx.ModelProto, engine: str) -> None:
    graph = open_model(model, Runtime(engine="openvino" if engine == "openvino" else "onnxruntime"))

    with_map = graph.run(IMAGES_NHW)
    without = graph.run(IMAGES_NHW, with_map=False)

    np.testing.assert_array_equal(without.logit_N, with_map.logit_N)
    np.testing.assert_array_equal(without.novelty_N, with_map.novelty_N)
    assert with_map.cam_Nhw.shape == (5, 4, 4)
    assert without.cam_Nhw.shape == (5, 0, 0)


def test_a_run_without_a_map_does_not_run_the_networks_that_draw() -> None:
    """A map part that fails on every image tells whether it was run."""
    model = graph_with_own_map()
    nodes = list(model.graph.node)
    (place,) = (number for number, node in enumerate(nodes) if node.output[0] == "drawn")
    failing = [
        onnx.helper.make_node("ReduceMax", ["grey"], ["brightest"], keepdims=0),
        onnx.helper.make_node("Cast", ["brightest"], ["row"], to=onnx.TensorProto.INT64),
        onnx.helper.make_node("Gather", ["pattern", "row"], ["no_row"]),
        onnx.helper.make_node("Mul", ["cells", "no_row"], ["drawn"]),
    ]
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:place], *failing, *nodes[place + 1 :]])
    graph = OnnxGraph(model.SerializeToString())

    assert len(graph.run(IMAGES_NHW, with_map=False).logit_N) == 5
    with pytest.raises(GraphError):
        graph.run(IMAGES_NHW)


@pytest.mark.parametrize(
    "model",
    [made_graph(32), made_graph(32, reads_facts=True)],
    ids=["its logit is pooled from its map", "it reads metadata"],
)
def test_another_model_is_not_divided(model: onnx.ModelProto) -> None:
    assert divide(model.SerializeToString()) is None
