"""From a finished RUN to a bundle in the store, refused unless every gate holds.

final weights -> model.onnx ----------------------> gates
fold weights  -> graphs -> held-out predictions --> calibration, thresholds, novelty limits, metrics
phantoms      -> golden.npz                          |
                                                     bundle.json, metrics.json, MODEL_CARD.md
"""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from cxr.bundle import SCHEMA, GraphFile, Manifest, Parity, TrainingData, file_sha256, read_bundle, write_bundle, write_manifest
from cxr.errors import BundleError
from cxr.graph import OnnxGraph, open_graph
from cxr.interpret import PLAIN_READING, Cam, Outputs
from cxr.preprocess import PreprocessSpec
from training.calibrate import DEFAULT_OPERATING_POINT, novelty_limits
from training.card import write_card
from training.checkpoint import Run, load_network, load_run
from training.config import recipe_to_dict
from training.datasets.index import write_table
from training.golden import make_golden
from training.heldout import HeldOut, basis, predict_held_out, read_off
from training.network import ChestNet
from training.parity import Gate, Runner, edge_images, file_gates, measure_parity, opset_of, parity_gates, require
from training.samples import open_cache
from training.trace import MAX_BATCH, describe, trace

GRAPH_FILE = "model.onnx"
_PARITY_IMAGES = 64
_PARITY_SEED = 0


def export(run_dir: Path, store: Path, model: str, version: int) -> Path:
    """Write `store/model/version/` from a RUN and give its path; what is written was run and held to every gate.

    Raises:
        RunError: the RUN is unfinished or no RUN.
        BundleError: that version is there already.
        ExportRefused: a gate failed; nothing was written.
    """
    run = load_run(run_dir)
    with write_bundle(store, model, version) as draft:
        network = load_network(run.final_weights, run.recipe)
        network.prepare_for_export()
        print("writing the graph", flush=True)
        trace(network, run.recipe.size, draft / GRAPH_FILE)
        held_out = predict_held_out(run, draft / GRAPH_FILE)
        _write_splits(draft / "splits.csv", run)
        facts = _facts(run, held_out, network, draft / "splits.csv") | {"model": model, "version": version}
        describe(draft / GRAPH_FILE, _properties(facts))
        parity = _check_graph(draft / GRAPH_FILE, run, network, held_out)
        _write_texts(draft, Manifest.model_validate(facts | {"graphs": (_graph_file(draft / GRAPH_FILE, parity),)}))
        make_golden(OnnxGraph(draft / GRAPH_FILE), _spec(run)).save(draft / "golden.npz")
        require(_bundle_gates(draft))
    _write_triton_config(store / model / "config.pbtxt", model)
    return store / model / str(version)


def _facts(run: Run, held_out: HeldOut, network: ChestNet, splits: Path) -> dict[str, Any]:
    """Gather the manifest but for the graph files, model and version."""
    recipe = run.recipe
    plain, plain_figures = read_off(held_out, PLAIN_READING)
    tta, tta_figures = read_off(held_out, recipe.tta_policy)
    origin = basis(run, held_out)
    return {
        "schema": SCHEMA,
        "finding": recipe.finding,
        "labels": recipe.labels,
        "readings": {PLAIN_READING: plain, recipe.tta_policy: tta},
        "default_operating_point": DEFAULT_OPERATING_POINT,
        "tta_policy": recipe.tta_policy,
        "cam": Cam(pool="mean", bias=network.cam_bias),
        "novelty": novelty_limits(held_out.novelty_N, _novelty_basis(run)),
        "scope": recipe.scope,
        "input_size": recipe.size,
        "preprocess": _spec(run),
        "intended_use": recipe.intended_use,
        "limits": recipe.limits,
        "metrics": {"basis": origin, **plain_figures, "tta": {"policy": recipe.tta_policy, **tta_figures}},
        "training_data": _training_data(run, splits),
        "recipe": _without_folders(recipe_to_dict(recipe)),
        "command": shlex.join(_without_folder(word) for word in shlex.split(run.facts["command"])),
        "git_commit": run.facts["git_commit"],
        "tools": run.facts["tools"],
    }


def _training_data(run: Run, splits: Path) -> TrainingData:
    return TrainingData(
        name=run.index.name,
        licence=run.recipe.data_licence,
        images=len(run.index),
        positives=int(run.index.label_N.sum()),
        person_groups=run.index.person_groups,
        sha256=run.index.fingerprint,
        splits_sha256=file_sha256(splits),
    )


def _novelty_basis(run: Run) -> str:
    if run.recipe.validation == "holdout":
        return "held back from the model"
    return (
        f"each from the network of its fold, which had not seen it ({run.recipe.folds} networks pooled, each with its own "
        "whitening; the shipped network learned from all of them, so its distances to new images lie a little lower)"
    )


def _spec(run: Run) -> PreprocessSpec:
    return PreprocessSpec(size=run.recipe.size)


def _without_folders(recipe: dict[str, Any]) -> dict[str, Any]:
    return {key: _without_folder(value) if isinstance(value, str) else value for key, value in recipe.items()}


def _without_folder(word: str) -> str:
    """Name only the last part of an absolute path: a bundle tells nothing of the machine that made it."""
    return PurePath(word).name if PurePath(word).is_absolute() else word


def _properties(facts: dict[str, Any]) -> dict[str, str]:
    """Give the manifest's essentials as the graph file carries them, each value JSON or plain text."""
    names = (
        "schema", "model", "version", "finding", "labels", "input_size", "preprocess", "cam", "readings",
        "default_operating_point", "tta_policy", "novelty", "intended_use", "limits",
    )  # fmt: skip
    return {name: _text(facts[name]) for name in names}


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, default=lambda part: part.model_dump(mode="json"))


def _check_graph(path: Path, run: Run, network: ChestNet, held_out: HeldOut) -> Parity:
    """Hold the graph file to its gates and give the measured parity; raises `ExportRefused`."""
    print("gates of the graph", flush=True)
    require(file_gates(path, _private_texts(run)))
    images_NHW = np.concatenate([_held_out_images(run, held_out), edge_images(run.recipe.size)])
    cam = Cam(pool="mean", bias=network.cam_bias)
    parity = measure_parity(_runner(network), OnnxGraph(path), images_NHW, cam)
    require(parity_gates(parity))
    return parity


def _held_out_images(run: Run, held_out: HeldOut) -> NDArray[np.uint8]:
    """Draw up to 64 held-out images from the cache."""
    rng = np.random.default_rng(_PARITY_SEED)
    count = min(_PARITY_IMAGES, len(held_out.position_N))
    chosen = np.sort(rng.choice(held_out.position_N, count, replace=False))
    return np.asarray(open_cache(run)[chosen])


def _runner(network: ChestNet) -> Runner:
    def run(batch_NHW: NDArray[np.uint8]) -> Outputs:
        with torch.inference_mode():
            logit_N, cam_Nhw, novelty_N = network(torch.from_numpy(np.ascontiguousarray(batch_NHW)))
        return Outputs(logit_N.numpy(), cam_Nhw.numpy(), novelty_N.numpy())

    return run


def _private_texts(run: Run) -> set[str]:
    """Give the folders of this machine that no file of the bundle may name."""
    return {str(folder.resolve()) for folder in (Path.home(), Path.cwd(), run.path, run.data_dir)} - {"/"}


def _graph_file(path: Path, parity: Parity) -> GraphFile:
    return GraphFile(
        file=path.name,
        precision="fp32",
        sha256=file_sha256(path),
        bytes=path.stat().st_size,
        opset=opset_of(onnx.load(path)),
        parity=parity,
    )


def _write_texts(draft: Path, manifest: Manifest) -> None:
    write_manifest(draft / "bundle.json", manifest)
    (draft / "metrics.json").write_text(json.dumps(manifest.metrics, indent=2) + "\n", encoding="utf-8")
    write_card(draft / "MODEL_CARD.md", manifest)


def _write_splits(path: Path, run: Run) -> None:
    """Write splits.csv, with a column that tells whether the shipped model learned from the image."""
    held_back = {0} if run.recipe.validation == "holdout" else set()
    names = ["image_id", "sha256", "person_group", "label", "fold", "fitted"]
    lines = [
        [row.image_id, row.sha256, row.person_group, str(row.label), str(fold), "no" if fold in held_back else "yes"]
        for row, fold in zip(run.index.rows, run.fold_N.tolist(), strict=True)
    ]
    write_table(path, names, lines)


def _bundle_gates(draft: Path) -> Iterator[Gate]:
    """Read the draft back as the service will, and let it answer its golden inputs."""
    try:
        open_graph(read_bundle(draft))
    except BundleError as exc:
        yield Gate("the bundle opens and answers its golden inputs", str(exc), False)
    else:
        yield Gate("the bundle opens and answers its golden inputs", "all of them", True)


def _write_triton_config(path: Path, model: str) -> None:
    """Write the model's Triton configuration; Triton completes the tensors from each version's graph."""
    path.write_text(
        f'name: "{model}"\nbackend: "onnxruntime"\nmax_batch_size: {MAX_BATCH}\ndynamic_batching {{ }}\n', encoding="utf-8"
    )
