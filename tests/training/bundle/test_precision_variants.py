"""Other precisions of the smoke recipe's graph: converted, measured and kept or refused."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from cxr.bundle import Bundle, read_bundle
from cxr.graph import OnnxGraph
from cxr.interpret import PLAIN_PROFILE
from training.bundle.bf16 import golden_gate, openvino_is_installed
from training.bundle.convert_precision import CONVERTERS, StoredPrecision
from training.bundle.export import export
from training.bundle.held_out import predict_held_out
from training.bundle.precision_cost import cost_gates
from training.bundle.precision_variants import Reference, convert, measure_fast
from training.bundle.release_gates.graph_gates import file_gates, pool
from training.fit.run_dir import load_run
from training.hardware import bf16_instructions


@pytest.fixture(scope="module")
def bundle(bundle_dir: Path) -> Bundle:
    return read_bundle(bundle_dir)


@pytest.fixture(scope="module")
def yardstick(bundle: Bundle, run_dir: Path) -> Reference:
    run, graphs = load_run(run_dir), {0: bundle.graph_path}
    return Reference(
        run,
        predict_held_out(run, graphs),
        graphs,
        bundle.manifest.readings[PLAIN_PROFILE],
        bundle.golden,
    )


@pytest.fixture(scope="module")
def converted(
    bundle: Bundle, yardstick: Reference, tmp_path_factory: pytest.TempPathFactory
) -> dict[StoredPrecision, Path]:
    """The smoke graph in fp16 and int8, whatever the gates say of them."""
    folder = tmp_path_factory.mktemp("converted")
    paths = {precision: folder / f"model.{precision}.onnx" for precision in CONVERTERS}
    for precision, path in paths.items():
        CONVERTERS[precision](bundle.graph_path, path, yardstick.calibration_images((0,)))
    return paths


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_converted_file_is_smaller_and_keeps_the_graphs_contract(
    precision: StoredPrecision, converted: dict[StoredPrecision, Path], bundle: Bundle
) -> None:
    path = converted[precision]
    assert [str(gate) for gate in file_gates(path) if not gate.holds] == []
    assert path.stat().st_size < 0.6 * bundle.graph_path.stat().st_size
    assert OnnxGraph(path).properties == OnnxGraph(bundle.graph_path).properties


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_converted_graphs_map_still_adds_up_to_its_logit(
    precision: StoredPrecision, converted: dict[StoredPrecision, Path], bundle: Bundle
) -> None:
    outputs = OnnxGraph(converted[precision]).run(bundle.golden.image_NHW)
    np.testing.assert_allclose(
        pool(outputs.cam_Nhw, bundle.manifest.cam), outputs.logit_N, rtol=1e-5, atol=1e-5
    )


def test_the_fp16_graph_passes_every_gate_and_answers_its_golden_inputs(
    converted: dict[StoredPrecision, Path], yardstick: Reference
) -> None:
    graph = OnnxGraph(converted["fp16"], precision="fp16")
    gates = [
        *cost_gates("fp16", yardstick.cost_of(lambda *_: graph)),
        golden_gate(yardstick.golden, graph),
    ]
    assert [str(gate) for gate in gates if not gate.holds] == []


def test_a_spoilt_int8_graph_is_refused(
    converted: dict[StoredPrecision, Path], yardstick: Reference, tmp_path: Path
) -> None:
    model = onnx.load(converted["int8"])
    scales = [
        tensor
        for tensor in model.graph.initializer
        if tensor.name.endswith("_scale") and tensor.dims
    ]
    for tensor in scales:  # of the weights, one a channel
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor)[::-1].copy(), tensor.name)
        )
    spoilt = tmp_path / "model.int8.onnx"
    onnx.save_model(model, spoilt)
    cost = yardstick.cost_of(lambda *_: OnnxGraph(spoilt, precision="int8"))
    assert not all(gate.holds for gate in cost_gates("int8", cost))


def test_a_file_whose_gate_fails_is_taken_away_and_the_reason_kept(
    yardstick: Reference, bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.fp16.onnx"
    verdict = convert(yardstick, "fp16", bundle.graph_path, path, max_bytes=1000)
    assert not path.exists()
    assert verdict.figures().allowed is False
    assert [reason.partition(":")[0] for reason in verdict.failed] == ["file size"]
    assert "fp16 REFUSED: file size" in capsys.readouterr().out


def test_export_adds_the_precisions_that_hold_and_says_of_each_what_it_costs(
    run_dir: Path, tmp_path: Path
) -> None:
    bundle = read_bundle(export(run_dir, tmp_path, "patch", 1, precisions=("fp16", "int8")))
    verdicts, files = (
        bundle.manifest.metrics.precisions or {},
        {graph.precision: graph.file for graph in bundle.manifest.graphs},
    )
    assert list(verdicts) == ["fp16", "int8", "bf16"]
    assert files["fp16"] == "model.fp16.onnx"
    for precision in ("fp16", "int8"):
        path = bundle.path / f"model.{precision}.onnx"
        assert verdicts[precision].allowed == (precision in files) == path.is_file()
        assert f"`model.{precision}.onnx`" in bundle.card
    assert verdicts["bf16"].allowed == (bundle.manifest.fast is not None)


def test_fast_is_not_measured_on_few_images(yardstick: Reference, bundle: Bundle) -> None:
    verdict, fast = measure_fast(yardstick, bundle.graph_path)
    assert fast is None
    assert verdict.failed[0].startswith("not measured: it takes 100 held-out images")


def test_fast_is_allowed_only_where_it_was_measured(yardstick: Reference, bundle: Bundle) -> None:
    verdict, fast = measure_fast(yardstick, bundle.graph_path, min_images=10)
    if not openvino_is_installed() or bf16_instructions() is None:
        assert verdict.failed[0].startswith("not measured: ")
        assert fast is None
    else:
        assert verdict.cost is not None
        assert verdict.holds == (fast is not None)
