"""Write a bundle's manifest from a run directory and its held-out predictions."""

import json
import shlex
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import Any

from cxr.bundle import file_sha256
from cxr.interpret import PLAIN_PROFILE, Cam
from cxr.manifest import SCHEMA, TrainingData
from cxr.metadata_features import COLUMNS
from cxr.preprocess import PreprocessSpec
from training.bundle.held_out import HeldOut, basis, novelty_basis, read_off, stress_figures
from training.fit.run_dir import Run
from training.recipe.schema import recipe_to_dict
from training.stats.calibrate import DEFAULT_OPERATING_POINT, novelty_limits

_EXPORT_TOOLS = ("onnx", "onnxscript", "onnxruntime")


def manifest_facts(run: Run, held_out: HeldOut, cam: Cam, splits: Path) -> dict[str, Any]:
    """Gather the fields of a `cxr.bundle.Manifest`, all but model, version and graphs."""
    recipe = run.recipe
    plain, plain_figures = read_off(held_out, PLAIN_PROFILE)
    tta, tta_figures = read_off(held_out, recipe.tta_policy)
    return {
        "schema": SCHEMA,
        "finding": recipe.finding,
        "labels": recipe.labels,
        "readings": {PLAIN_PROFILE: plain, recipe.tta_policy: tta},
        "default_operating_point": DEFAULT_OPERATING_POINT,
        "tta_policy": recipe.tta_policy,
        "cam": cam,
        "novelty": novelty_limits(held_out.novelty_N, novelty_basis(run)),
        "scope": recipe.scope,
        "input_size": recipe.size,
        "preprocess": PreprocessSpec(size=recipe.size),
        "metadata": COLUMNS if recipe.metadata else (),
        "intended_use": recipe.intended_use,
        "limits": recipe.limits,
        "metrics": {
            "basis": basis(run, held_out),
            **plain_figures,
            "tta": {"policy": recipe.tta_policy, **tta_figures},
            "stressed": stress_figures(held_out),
        },
        "training_data": _training_data(run, splits),
        "recipe": _recipe(run),
        "command": _portable(run.facts["command"]),
        "git_commit": run.facts["git_commit"],
        "tools": run.facts["tools"] | {name: version(name) for name in _EXPORT_TOOLS},
    }


def graph_properties(facts: Mapping[str, Any]) -> dict[str, str]:
    """Pick the essentials that the graph file carries itself, each value plain text or JSON."""
    names = (
        "schema", "model", "version", "finding", "labels", "input_size", "preprocess", "metadata",
        "cam", "readings",
        "default_operating_point", "tta_policy", "novelty", "intended_use", "limits",
    )  # fmt: skip
    return {name: _text(facts[name]) for name in names}


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


def _recipe(run: Run) -> dict[str, Any]:
    """Return the resolved recipe, with the hash of its initial weights. For an ensemble, add the
    recipes of its run directories.
    """
    told: dict[str, Any] = {"init_weights": _started(run.facts["init_weights"])}
    if run.recipe.joined:
        told["joined"] = [
            joined
            | {
                "command": _portable(joined["command"]),
                "init_weights": _started(joined["init_weights"]),
            }
            for joined in run.facts["joined"]
        ]
    return recipe_to_dict(run.recipe) | told


def _started(weights: dict[str, str] | None) -> dict[str, str] | None:
    return weights and weights | {"file": _without_folder(weights["file"])}


def _portable(command: str) -> str:
    return shlex.join(_without_folder(word) for word in shlex.split(command))


def _without_folder(word: str) -> str:
    """Return only the last part of an absolute path, also after `key=`: a bundle names no folder of
    a machine.
    """
    key, equals, value = word.rpartition("=")
    return f"{key}{equals}{PurePath(value).name}" if PurePath(value).is_absolute() else word


def _text(value: Any) -> str:
    return (
        value
        if isinstance(value, str)
        else json.dumps(value, default=lambda part: part.model_dump(mode="json"))
    )
