"""A run directory on disk: written by training, read by evaluation and export.

    RUN/
        run.json        resolved recipe, command, data, commit, tools, images that could not be read
        index.csv       every image: id, path, hash, person group, label, age, sex, view
        splits.csv      which fold each image lies in
        cache/          decoded images, uint8, at the final size; segmentation masks, if any
        fold-<k>/       model.safetensors (fold k held-out), metrics.jsonl, tensorboard/, state.pt
                        while unfinished; with several networks, the last three lie in
                        member-<n>/, with the weights of that network
        final/          model.safetensors, the model to export
        log.jsonl       events with their times

Weights are safetensors; the state for resuming is read with `weights_only`. Nothing here unpickles.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cxr.bundle import file_sha256
from training.data.index import DataIndex, read_table, write_table
from training.errors import TrainingError
from training.model.network import ChestNet
from training.recipe.schema import Recipe, recipe_from_dict

RUN_SCHEMA = "cxr-run/1"
STATE_FILE = "state.pt"


class RunError(TrainingError):
    """A run directory is invalid or unfinished; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run directory, read. `fold_N` is the fold of each row of the index; -1 for images of
    persons who are not measured on, from whom every network learns.
    """

    path: Path
    recipe: Recipe
    facts: dict[str, Any]
    """run.json as it stands: `command`, `git_commit`, `tools`, `data`, `init_weights`,
    `unreadable`."""
    index: DataIndex
    fold_N: NDArray[np.int64]

    @property
    def data_dirs(self) -> tuple[Path, ...]:
        """Where the images lay, as the command named the folders."""
        return tuple(Path(name) for name in self.facts["data"]["dirs"])

    @property
    def measured_N(self) -> NDArray[np.bool_]:
        """Which images figures, calibration and thresholds come from; the others only teach."""
        sources = self.facts["data"].get("measure_on")
        rows = self.index.rows
        return np.array([sources is None or row.source in sources for row in rows], dtype=np.bool_)

    @property
    def has_mask_N(self) -> NDArray[np.bool_]:
        """Which images lie in a data folder that has masks."""
        folders = self.facts["data"].get("folders_with_masks")
        rows = self.index.rows
        return np.array([folders is None or row.folder in folders for row in rows], dtype=np.bool_)

    @property
    def splits_csv(self) -> Path:
        """Which image lay in which fold."""
        return self.path / "splits.csv"

    @property
    def final_weights(self) -> Path:
        """Weights of the model to export."""
        return self._finished(self.path / "final" / "model.safetensors")

    @property
    def held_out_folds(self) -> tuple[int, ...]:
        """The folds that have a model which never saw them."""
        return (0,) if self.recipe.validation == "holdout" else tuple(range(self.recipe.folds))

    def fold_weights(self, fold: int) -> Path:
        """Weights of the model that never saw fold `fold`."""
        return self._finished(self.path / f"fold-{fold}" / "model.safetensors")

    def held_out(self, fold: int) -> NDArray[np.int64]:
        """Positions in the index of the images of a fold that are measured on."""
        return np.flatnonzero((self.fold_N == fold) & self.measured_N)

    def _finished(self, path: Path) -> Path:
        if not path.is_file():
            raise RunError(f"{path} is not there: run the training's command again, it resumes")
        return path


def load_run(path: Path) -> Run:
    """Read a run directory folder; raises `RunError`."""
    try:
        facts = json.loads((path / "run.json").read_text(encoding="utf-8"))
        recipe = recipe_from_dict(facts["recipe"])
        if file_sha256(path / "splits.csv") != facts["data"]["splits_sha256"]:
            raise ValueError("splits.csv is not the one that it was trained on")
        index = DataIndex.read_csv(path / "index.csv", facts["data"]["name"])
        return Run(path, recipe, facts, index, read_splits(path / "splits.csv", index))
    except (OSError, KeyError, ValueError, TrainingError) as exc:
        raise RunError(f"{path} is no RUN of `training train`: {exc}") from exc


def write_facts(path: Path, facts: Mapping[str, Any]) -> None:
    """Write run.json atomically. If it exists, all other files of the preparation are complete."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)


def write_splits(path: Path, index: DataIndex, fold_N: NDArray[np.int64]) -> None:
    """Write splits.csv."""
    names = ["image_id", "sha256", "person_group", "label", "fold"]
    pairs = zip(index.rows, fold_N.tolist(), strict=True)
    write_table(
        path,
        names,
        [
            [row.image_id, row.sha256, row.person_group, str(row.label), str(fold)]
            for row, fold in pairs
        ],
    )


def read_splits(path: Path, index: DataIndex) -> NDArray[np.int64]:
    """Read splits.csv as `fold_N` in the index's order. Raise `ValueError` if the two disagree."""
    lines = read_table(path)
    if [line["sha256"] for line in lines] != [row.sha256 for row in index.rows]:
        raise ValueError("splits.csv and index.csv list different images")
    return np.array([int(line["fold"]) for line in lines], dtype=np.int64)


def load_network(weights: Path, recipe: Recipe) -> ChestNet:
    """Build a recipe's network with weights from a safetensors file, in evaluation mode; raises
    `RunError`.
    """
    network = ChestNet.of(recipe)
    try:
        network.load_state_dict(load_file(weights))
    except (OSError, SafetensorError, RuntimeError) as exc:
        raise RunError(f"{weights} can't be read into {recipe.network}: {exc}") from exc
    return network.eval()


def save_network(path: Path, network: torch.nn.Module) -> None:
    """Write a network's weights and buffers as safetensors, whole or not at all."""
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    save_file(tensors, draft)
    draft.replace(path)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write the state for resuming atomically: an interrupted write leaves the previous state."""
    draft = path.with_suffix(".draft")
    with draft.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def load_state(path: Path) -> dict[str, Any] | None:
    """Read what `save_state` wrote, or None if there is nothing to resume; tensors and plain
    values only.
    """
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
