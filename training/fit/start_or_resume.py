"""Start a run directory from a recipe and a data folder, or resume an interrupted one."""

import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr.bundle import file_sha256
from training.data import DataError, DataIndex, load_indexes
from training.data.cache import build_cache
from training.data.masks import build_masks
from training.data.split import SplitError, refuse_leaks, split_measured
from training.fit.run_dir import RUN_SCHEMA, Run, RunError, load_run, write_facts, write_splits
from training.model.pretrained import imagenet_origin, refuse_misfits, refuse_missing_imagenet
from training.recipe.schema import IMAGENET, Recipe, recipe_to_dict

_NAME_THE_FINDING = frozenset(("labels", "nih"))
"""Layouts whose tables name the finding, so that any recipe can learn from them."""

_TOOLS = ("torch", "monai", "numpy", "pillow", "pydicom", "safetensors")


def open_run(  # noqa: PLR0913 - one for each option of the command
    recipe: Recipe,
    data: Path | Sequence[Path],
    out: Path,
    command: str,
    *,
    groups: Path | None = None,
    measure_on: Sequence[str] = (),
    weights: Sequence[float] = (),
) -> Run:
    """Prepare a run directory: index, cache, split, run.json. If it exists, check that it is of the
    same training.

    `groups` is a table of persons beyond what the data folders themselves tell (see
    `training.data.load_index`).  `measure_on` names the sources that figures come from; without it
    every image counts.  Folds are made of those, and no person lies in two; images of other
    persons are in no fold, and every network may learn from them.  `weights` are of the data
    folders, in the loss.

    Raises:
        RunError: the run directory exists, with another recipe or other data.
        DataError: the data folder has another layout, or nothing in it can be read.
        SplitError: the data can't be split without a leak.
        WeightsError: the weights to start from do not fit the network.
    """
    data_dirs = [data] if isinstance(data, Path) else list(data)
    index = load_indexes(data_dirs, groups=groups, finding=recipe.finding, weights=weights)
    layouts = index.name.split("+")
    if recipe.data_layout not in ("any", *layouts) and _NAME_THE_FINDING.isdisjoint(layouts):
        raise DataError(
            f"{recipe.name} learns from {recipe.data_layout}, and {_names(data_dirs)} holds "
            f"{index.name}"
        )
    if (out / "run.json").is_file():
        return _resume(recipe, index, out, weights)
    out.mkdir(parents=True, exist_ok=True)
    data_facts = _start(recipe, index, data_dirs, out, measure_on=measure_on)
    facts = {
        "schema": RUN_SCHEMA,
        "command": command,
        "recipe": recipe_to_dict(recipe),
        **data_facts,
        "data": data_facts["data"] | {"weights": _unequal(weights)},
        "init_weights": _weights(recipe),
        "git_commit": git_commit(),
        "tools": tools(),
    }
    write_facts(out / "run.json", facts)
    return load_run(out)


def _start(
    recipe: Recipe,
    index: DataIndex,
    data_dirs: Sequence[Path],
    out: Path,
    *,
    measure_on: Sequence[str],
) -> dict[str, Any]:
    """Write cache, masks, index and splits; return what run.json says of the data."""
    readable, refused = build_cache(index, data_dirs, out / "cache", recipe.size)
    if not readable.rows:
        raise DataError(
            f"{_names(data_dirs)}: no image can be read; the first one: {refused[0].reason}"
        )
    named = replace(readable, name=recipe.data_name)
    fold_N = _split(named, recipe, measure_on)
    drawn = build_masks(readable, data_dirs, out / "cache", recipe.size)
    if recipe.mask_weight and not drawn:
        raise DataError(
            f"{recipe.name} learns from segmentation masks (mask_weight), and "
            f"{_names(data_dirs)} has none"
        )
    named.write_csv(out / "index.csv")
    write_splits(out / "splits.csv", named, fold_N)
    data_facts = {
        **_data_facts(data_dirs, index, named),
        "measure_on": list(measure_on) or None,
        "folders_with_masks": list(drawn),
        "splits_sha256": file_sha256(out / "splits.csv"),
    }
    return {
        "data": data_facts,
        "unreadable": [asdict(image) for image in refused],
        "missing": list(index.missing),
    }


def _split(named: DataIndex, recipe: Recipe, measure_on: Sequence[str]) -> NDArray[np.int64]:
    """Return the fold of each image, negative if it is in none."""
    fold_N = split_measured(
        named,
        measure_on,
        recipe.folds,
        recipe.seed if recipe.split_seed is None else recipe.split_seed,
    )
    if (recipe.pretraining.epochs or recipe.companions) and not (fold_N < 0).any():
        raise DataError(
            f"{recipe.name} learns beforehand from images that are not measured on: add a --data "
            f"folder, and name by --measure-on what counts"
        )
    return fold_N


def _names(folders: Sequence[Path]) -> str:
    return ", ".join(map(str, folders))


def _resume(recipe: Recipe, index: DataIndex, out: Path, weights: Sequence[float]) -> Run:
    run = load_run(out)
    if recipe_to_dict(run.recipe) != recipe_to_dict(recipe):
        raise RunError(
            f"{out} was begun with another recipe: {_differences(run.recipe, recipe)}; choose "
            f"another --out"
        )
    if run.facts["data"]["found_sha256"] != index.fingerprint:
        raise RunError(f"{out} was begun on other data; choose another --out")
    if run.facts["data"].get("weights") != _unequal(weights):
        raise RunError(f"{out} was begun with other weights of its folders; choose another --out")
    refuse_leaks(run.index, run.fold_N)
    _refuse_new_leaks(index, run)
    return run


def _unequal(weights: Sequence[float]) -> list[float] | None:
    """Return the folders' weights; None if all are 1."""
    return None if all(weight == 1.0 for weight in weights) else list(weights)


def _refuse_new_leaks(index: DataIndex, run: Run) -> None:
    """Hold the run directory's folds against the persons as the data folder and the tables given
    now know them.
    """
    fold_of = {
        row.path: fold for row, fold in zip(run.index.rows, run.fold_N.tolist(), strict=True)
    }
    known = index.subset(i for i, row in enumerate(index.rows) if row.path in fold_of)
    try:
        refuse_leaks(known, np.array([fold_of[row.path] for row in known.rows], dtype=np.int64))
    except SplitError as exc:
        raise SplitError(
            f"{run.path} was split before this was known: {exc}; choose another --out"
        ) from exc


def _data_facts(data_dirs: Sequence[Path], found: DataIndex, used: DataIndex) -> dict[str, Any]:
    return {
        "dirs": [str(data_dir) for data_dir in data_dirs],
        "name": used.name,
        "layout": found.name,
        "sha256": used.fingerprint,
        "found_sha256": found.fingerprint,
        "images": len(used),
        "positives": int(used.label_N.sum()),
        "person_groups": used.person_groups,
    }


def _weights(recipe: Recipe) -> dict[str, str] | None:
    if recipe.init_weights is None:
        return None
    if recipe.init_weights == IMAGENET:
        refuse_missing_imagenet(recipe.network)
        return {"file": IMAGENET} | imagenet_origin(recipe.network) | {"head": "drawn anew"}
    path = Path(recipe.init_weights)
    if not path.is_file():
        raise RunError(f"init_weights: {path} is not there")
    refuse_misfits(path, recipe.network)
    return {"file": recipe.init_weights, "sha256": file_sha256(path), "head": "drawn anew"}


def tools() -> dict[str, str]:
    """Return the versions of what a training runs on."""
    return {"python": platform.python_version()} | {name: version(name) for name in _TOOLS}


def git_commit() -> str:
    """Return the commit of the source, marked if `cxr` or `training` has changed since.

    Outside a checkout it is `unknown`.
    """
    git = shutil.which("git")
    if git is None:
        return "unknown"
    commit = _ask_git(git, "rev-parse", "HEAD")
    if commit is None:
        return "unknown"
    changes = _ask_git(git, "status", "--porcelain", "--", "cxr", "training")
    return commit + ("-changed" if changes else "")


def _ask_git(git: str, *words: str) -> str | None:
    root = Path(__file__).parents[2]
    done = subprocess.run(  # noqa: S603 - a fixed command
        [git, *words], cwd=root, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None


def _differences(old: Recipe, new: Recipe) -> str:
    pairs = zip(recipe_to_dict(old).items(), recipe_to_dict(new).values(), strict=True)
    return ", ".join(f"{key} {was!r} -> {now!r}" for (key, was), now in pairs if was != now)
