"""Write a bundle's manifest from a run directory and its held-out predictions."""

import json
import shlex
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import Any

from pydantic import BaseModel

from cxr.bundle import file_sha256
from cxr.interpret import PLAIN_PROFILE, Cam
from cxr.manifest import GraphFile, Manifest, TrainingData
from cxr.metadata_features import COLUMNS
from cxr.metrics_schema import BundleMetrics, TtaFigures
from cxr.preprocess import PreprocessSpec
from cxr.study_schema import DataStatement
from training.bundle.held_out import HeldOut
from training.bundle.held_out_figures import (
    basis,
    fit_profile,
    localise_held_out,
    novelty_basis,
    robustness_figures,
)
from training.bundle.study_figures import describe_study
from training.fit.run_dir import Run
from training.recipe.schema import recipe_to_dict
from training.stats.calibrate import DEFAULT_OPERATING_POINT, novelty_limits

_EXPORT_TOOLS = ("onnx", "onnxscript", "onnxruntime")

_IN_GRAPH = (
    "schema_", "model", "version", "finding", "labels", "input_size", "preprocess", "metadata",
    "cam", "readings", "default_operating_point", "tta_policy", "novelty", "intended_use",
    "limits",
)  # fmt: skip
"""Fields that the graph file carries itself."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What a manifest is written from."""

    model: str
    version: int
    run: Run
    held_out: HeldOut
    cam: Cam
    splits: Path
    graph: GraphFile
    statement: DataStatement


def write_manifest_of(draft: Draft) -> Manifest:
    """Return the manifest of a draft: fit its decision profiles, and measure them.

    `metrics` lack what is measured on the finished graph: edge images and other precisions.
    """
    run, recipe, held_out = draft.run, draft.run.recipe, draft.held_out
    plain = fit_profile(held_out, PLAIN_PROFILE)
    tta = fit_profile(held_out, recipe.tta_policy)
    metrics = BundleMetrics(
        **dict(plain.figures),
        basis=basis(run, held_out) + _further(run),
        tta=TtaFigures(**dict(tta.figures), policy=recipe.tta_policy),
        stressed=robustness_figures(held_out),
    )
    localisation = localise_held_out(run, held_out, draft.cam.pool, plain.profile)
    if localisation is not None:
        metrics = metrics.changed(localisation=localisation)
    return Manifest(
        schema="cxr-bundle/1",
        model=draft.model,
        version=draft.version,
        finding=recipe.finding,
        labels=recipe.labels,
        readings={PLAIN_PROFILE: plain.profile, recipe.tta_policy: tta.profile},
        default_operating_point=DEFAULT_OPERATING_POINT,
        tta_policy=recipe.tta_policy,
        cam=draft.cam,
        novelty=novelty_limits(held_out.novelty_N, novelty_basis(run)),
        scope=recipe.scope,
        input_size=recipe.size,
        preprocess=PreprocessSpec(size=recipe.size),
        metadata=COLUMNS if recipe.metadata else (),
        intended_use=recipe.intended_use,
        limits=recipe.limits,
        metrics=metrics,
        training_data=_training_data(run, draft.splits),
        study=describe_study(run, held_out, plain.profile, draft.statement),
        recipe=_recipe(run),
        command=portable(run.facts["command"]),
        git_commit=run.facts["git_commit"],
        tools=run.facts["tools"] | {name: version(name) for name in _EXPORT_TOOLS},
        graphs=(draft.graph,),
    )


def _further(run: Run) -> str:
    """Return what was learned from and not measured on; nothing if there is no such image."""
    further = int((~run.measured_N).sum())
    if not further:
        return ""
    doubtful = sum(
        row.is_doubtful
        for row, measured in zip(run.index.rows, run.measured_N, strict=True)
        if not measured
    )
    return (
        f" Every network also learned from up to {further:,} images of other sources, "
        f"{doubtful:,} of them with labels that were read out of reports; none of their persons "
        "is among those whom it was measured on."
    )


def graph_properties(manifest: Manifest) -> dict[str, str]:
    """Return the essentials that the graph file carries itself, each value plain text or JSON."""
    return {name.removesuffix("_"): _text(getattr(manifest, name)) for name in _IN_GRAPH}


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
                "command": portable(joined["command"]),
                "init_weights": _started(joined["init_weights"]),
            }
            for joined in run.facts["joined"]
        ]
    return recipe_to_dict(run.recipe) | told


def _started(weights: dict[str, str] | None) -> dict[str, str] | None:
    return weights and weights | {"file": _without_folder(weights["file"])}


def portable(command: str) -> str:
    """Return a command without the folders of this machine."""
    return shlex.join(_without_folder(word) for word in shlex.split(command))


def _without_folder(word: str) -> str:
    """Return only the last part of an absolute path, also after `key=` and before `=weight`: a
    bundle names no folder of a machine.
    """
    key, equals, value = word.rpartition("=")
    if PurePath(value).is_absolute():
        return f"{key}{equals}{PurePath(value).name}"
    return f"{PurePath(key).name}{equals}{value}" if PurePath(key).is_absolute() else word


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=_plain)


def _plain(part: BaseModel) -> dict[str, Any]:
    return part.model_dump(mode="json")
