"""Write real bundles around a graph made by hand, whose right answers are known.

The logit of an image is `GAIN` times its mean grey level (0 black to 1 white)
minus 5; the map is the same before the mean, in four by four cells; novelty is the logit squared.
With `metadata` each column of `cxr.metadata_features` adds its own `WEIGHTS` to the logit.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cxr.bundle import file_sha256, write_bundle
from cxr.golden_answers import Golden
from cxr.graph import OnnxGraph
from cxr.interpret import Calibration, Cam, DecisionProfile, Labels, NoveltyLimits, Scope
from cxr.manifest import GraphFile, Manifest, Parity, TrainingData, write_manifest
from cxr.phantom import draw_phantom
from cxr.preprocess import PreprocessSpec

GAIN, BIAS = 10.0, -5.0
CELLS = 4
WEIGHTS = np.array([1.0, 0.5, 2.0, -2.0, 0.25, -0.25], np.float32)
"""Of the columns of `cxr.metadata_features`, where a made graph reads them."""


def write_made_bundle(
    store: Path, model: str, version: int, *, size: int = 32, **changes: Any
) -> Path:
    """Write a whole bundle into a store; `changes` override the manifest's fields."""
    with write_bundle(store, model, version) as draft:
        reads_facts = bool(changes.get("metadata"))
        onnx.save(made_graph(size, reads_facts=reads_facts), draft / "model.onnx")
        golden = _golden(draft / "model.onnx", size, reads_facts=reads_facts)
        golden.save(draft / "golden.npz")
        (draft / "metrics.json").write_text("{}")
        (draft / "MODEL_CARD.md").write_text(
            f"# {model}\n\nA made model for tests. <script>alert(1)</script>\n"
        )
        write_manifest(draft / "bundle.json", _manifest(draft, model, version, size, changes))
    return store / model / str(version)


def made_graph(size: int, *, reads_facts: bool = False) -> onnx.ModelProto:
    """Cast and scale, average in cells, gain, and the sums that the contract asks for."""
    inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", size, size])]
    outputs = [
        helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["N"]),
        helper.make_tensor_value_info("cam", TensorProto.FLOAT, ["N", CELLS, CELLS]),
        helper.make_tensor_value_info("novelty", TensorProto.FLOAT, ["N"]),
    ]
    constants: dict[str, NDArray[Any]] = {
        "one": np.array([1], np.int64), "axes": np.array([1, 2], np.int64),
        "gain": np.array(GAIN / 255, np.float32), "constant": np.array(BIAS, np.float32),
    }  # fmt: skip
    if reads_facts:
        shape: list[str | int | None] = ["N", len(WEIGHTS)]
        inputs.append(helper.make_tensor_value_info("metadata", TensorProto.FLOAT, shape))
        outputs.append(helper.make_tensor_value_info("bias", TensorProto.FLOAT, ["N"]))
        constants["weights"] = WEIGHTS
    graph = helper.make_graph(
        _made_nodes(size // CELLS, reads_facts=reads_facts),
        "made",
        inputs,
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _made_nodes(cell: int, *, reads_facts: bool) -> list[onnx.NodeProto]:
    beside = [
        helper.make_node("MatMul", ["metadata", "weights"], ["more"]),
        helper.make_node("Add", ["more", "constant"], ["bias"]),
    ]
    return [
        helper.make_node("Cast", ["image"], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["grey", "one"], ["grey4"]),
        helper.make_node(
            "AveragePool", ["grey4"], ["cells"], kernel_shape=[cell, cell], strides=[cell, cell]
        ),
        helper.make_node("Mul", ["cells", "gain"], ["cam4"]),
        helper.make_node("Squeeze", ["cam4", "one"], ["cam"]),
        helper.make_node("ReduceMean", ["cam", "axes"], ["mean"], keepdims=0),
        *(beside if reads_facts else []),
        helper.make_node("Add", ["mean", "bias" if reads_facts else "constant"], ["logit"]),
        helper.make_node("Mul", ["logit", "logit"], ["novelty"]),
    ]


def graph_with_own_map(size: int = 32) -> onnx.ModelProto:
    """Return a graph whose logit is that of the made one, and whose map needs weights of its own.

    The map is a pattern times the cells, moved so that it adds up to the logit.
    """
    made = made_graph(size)
    answering = [
        helper.make_node("Cast", ["image"], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["grey", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "gain"], ["gained"]),
        helper.make_node("Add", ["gained", "constant"], ["logit"]),
        helper.make_node("Mul", ["logit", "logit"], ["novelty"]),
    ]
    cell = size // CELLS
    drawing = [
        helper.make_node("Unsqueeze", ["grey", "channel"], ["grey4"]),
        helper.make_node(
            "AveragePool", ["grey4"], ["cells4"], kernel_shape=[cell, cell], strides=[cell, cell]
        ),
        helper.make_node("Squeeze", ["cells4", "channel"], ["cells"]),
        helper.make_node("Mul", ["cells", "pattern"], ["drawn"]),
        helper.make_node("ReduceMean", ["drawn", "cell_axes"], ["drawn_mean"], keepdims=1),
        helper.make_node("Sub", ["drawn", "drawn_mean"], ["without_mean"]),
        helper.make_node("Sub", ["logit", "map_constant"], ["pooled"]),
        helper.make_node("Unsqueeze", ["pooled", "cell_axes"], ["pooled3"]),
        helper.make_node("Add", ["without_mean", "pooled3"], ["cam"]),
    ]
    constants: dict[str, NDArray[Any]] = {
        "axes": np.array([1, 2], np.int64), "gain": np.array(GAIN / 255, np.float32),
        "constant": np.array(BIAS, np.float32), "channel": np.array([1], np.int64),
        "pattern": np.linspace(0, 1, CELLS * CELLS, dtype=np.float32).reshape(CELLS, CELLS),
        "cell_axes": np.array([1, 2], np.int64), "map_constant": np.array(BIAS, np.float32),
    }  # fmt: skip
    graph = helper.make_graph(
        [*answering, *drawing],
        "own-map",
        list(made.graph.input),
        list(made.graph.output),
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def replace_graph(bundle: Path, model: onnx.ModelProto) -> None:
    """Put another graph into a bundle, and its hash into bundle.json."""
    path = bundle / "model.onnx"
    before = file_sha256(path)
    onnx.save(model, path)
    manifest = bundle / "bundle.json"
    manifest.write_text(manifest.read_text().replace(before, file_sha256(path)))


def endless_graph(size: int = 32) -> onnx.ModelProto:
    """Return the made graph with a loop behind its novelty that does not end."""
    model = made_graph(size)
    number = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_in"], ["go_out"]),
            helper.make_node("Add", ["value_in", "step"], ["value_out"]),
        ],
        "body",
        [
            number("count", TensorProto.INT64, []),
            number("go_in", TensorProto.BOOL, []),
            number("value_in", TensorProto.FLOAT, ["N"]),
        ],
        [
            number("go_out", TensorProto.BOOL, []),
            number("value_out", TensorProto.FLOAT, ["N"]),
        ],
        [numpy_helper.from_array(np.array(1, np.float32), "step")],
    )
    graph = model.graph
    graph.node[-1].output[0] = "before"
    graph.node.append(helper.make_node("Loop", ["trips", "go", "before"], ["novelty"], body=body))
    graph.initializer.append(numpy_helper.from_array(np.array(2**62, np.int64), "trips"))
    graph.initializer.append(numpy_helper.from_array(np.array(1, np.bool_), "go"))
    return model


def made_metrics(**changes: Any) -> dict[str, Any]:
    """Figures as they might be measured; `changes` override those of the plain view."""
    rates = ("accuracy", "sensitivity", "specificity", "ppv", "npv")
    point: dict[str, Any] = {"threshold": 0.5, "confusion": [[1, 1], [0, 1]]}
    point |= dict.fromkeys(rates, 0.5) | {f"{rate}_ci95": [0.1, 0.9] for rate in rates}
    calibration = {
        "slope": 1.0,
        "intercept": 0.0,
        "slope_ci95": None,
        "intercept_ci95": None,
        "note": None,
        "cross_fitted": {"brier": 0.2, "ece": 0.1},
    }
    figures: dict[str, Any] = {
        "n": 3,
        "n_positive": 1,
        "auroc": 0.5,
        "auroc_ci95": [0.1, 0.9],
        "average_precision": 0.5,
        "brier": 0.2,
        "ece": 0.1,
        "operating_points": {"balanced": point, "screen": point},
        "default_operating_point": "balanced",
        "calibration": calibration,
    }
    tta = figures | {"policy": "mirror"}
    return figures | {"basis": "synthetic images.", "tta": tta} | changes


def _golden(path: Path, size: int, *, reads_facts: bool) -> Golden:
    images_NHW = np.stack([draw_phantom(size, size, seed=seed) for seed in range(3)])
    metadata_NM = np.eye(3, len(WEIGHTS), dtype=np.float32) if reads_facts else None
    outputs = OnnxGraph(path).run(images_NHW, metadata_NM)
    tolerances = {
        "onnxruntime-cpu/fp32": 1e-4,
        "onnxruntime-gpu/fp32": 2e-2,
        "openvino-cpu/fp32": 1e-4,
        "openvino-cpu/bf16": 0.2,
        "fake/fp32": 1e9,
    }
    return Golden(
        images_NHW, outputs.logit_N, outputs.cam_Nhw, outputs.novelty_N, tolerances, metadata_NM
    )


def _manifest(
    draft: Path, model: str, version: int, size: int, changes: dict[str, Any]
) -> Manifest:
    profile = DecisionProfile(
        calibration=Calibration(slope=1.0, intercept=0.0),
        thresholds={"balanced": 0.5, "screen": 0.2},
    )
    graph = GraphFile(
        file="model.onnx", precision="fp32", sha256=file_sha256(draft / "model.onnx"),
        bytes=(draft / "model.onnx").stat().st_size, opset=20,
        parity=Parity(
            images=3, max_logit_error=0, max_cam_error=0, max_novelty_error=0,
            max_cam_identity_error=0, max_batch_error=0
        ),
    )  # fmt: skip
    data = TrainingData(
        name="made",
        licence="none",
        images=3,
        positives=1,
        person_groups=3,
        sha256="0" * 64,
        splits_sha256="0" * 64,
    )
    fields: dict[str, Any] = {
        "model": model, "version": version, "finding": "brightness",
        "labels": Labels(negative="dark", positive="bright"),
        "input_size": size, "preprocess": PreprocessSpec(size=size), "readings": {"plain": profile,
        "mirror": profile},
        "default_operating_point": "balanced", "tta_policy": "mirror", "cam": Cam(pool="mean",
        bias=BIAS),
        "novelty": NoveltyLimits(warn=30.0, novel=60.0, source="made"),
        "scope": Scope(min_age_years=18.0, views=("PA", "AP"), modalities=("CR", "DX")),
        "intended_use": "tests", "limits": "tests", "metrics": made_metrics(),
        "training_data": data, "recipe": {},
        "command": "none", "git_commit": "none", "tools": {}, "graphs": (graph,),
        "golden_sha256": file_sha256(draft / "golden.npz"),
    }  # fmt: skip
    return Manifest.model_validate({**fields, **changes})
