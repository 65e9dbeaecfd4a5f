"""`training join`: make an ensemble of finished run directories; its logit is the mean of theirs.

    RUN a, RUN b -> for each fold and the final model: their networks, side by side in one -> RUN ->
    `training export`

Different networks make different errors, and their mean usually makes fewer (Hansen and Salamon
1990). Each run counts once, however many networks it trained. Networks may have different kinds and
sizes; the ensemble reads images of the largest size.

Shape suffixes: N images.
"""

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from training.fit.batches import Samples, open_samples
from training.fit.run_dir import Run, RunError, load_network, load_run, save_network, write_facts
from training.fit.start_or_resume import git_commit, tools
from training.fit.train import take_as_final
from training.fit.validate import fit_novelty
from training.model.network import ChestNet
from training.progress import progress_bar
from training.recipe.schema import EnsembleMember, EnsemblePart, Recipe, recipe_to_dict

_TOLD = ("command", "git_commit", "init_weights", "recipe")
"""Keys of each run directory's run.json that the ensemble keeps."""

_TEXTS = ("data_name", "data_licence", "limits", "intended_use", "scope")
"""Fields that the ensemble takes from the run directory that is named first."""

_ALIKE = ("task", "finding", "data_layout", "pool", "validation", "folds", "tta_policy")
"""Fields of the recipes that must agree."""


def join(  # noqa: PLR0913 -- one for each option of the command
    paths: Sequence[Path],
    out: Path,
    name: str,
    command: str,
    *,
    whether: Sequence[Path] = (),
    where: Sequence[Path] = (),
) -> Run:
    """Make a run directory of finished ones. Only the statistics of the novelty head are fitted
    anew.

    Args:
        paths: at least two run directories on one split of the same data.
        out: the new run directory.
        name: the name of its recipe.
        command: the command line, for run.json.
        whether: those of `paths` that only decide; if any is named, all are named as one or other.
        where: those that only draw the map: their logit is left out, and all others decide.

    Raises:
        RunError: a run directory is unfinished, they do not go together, or `out` is there already.
    """
    runs = [load_run(path) for path in paths]
    parts_of = _parts(paths, whether, where)
    _refuse_strangers(runs)
    if (out / "run.json").exists():
        raise RunError(f"{out} holds a run directory already; choose another --out")
    largest = max(runs, key=lambda run: run.recipe.size)
    recipe = _joined_recipe(runs, parts_of, largest.recipe, name)
    weights = _weights_by_folder(runs, largest)  # before anything is written
    _take_data(largest, out)
    _join_networks(runs, weights, recipe, largest, out)
    if recipe.validation == "holdout":
        take_as_final(out)
    told = [
        {key: run.facts[key] for key in _TOLD} | {"part": part}
        for run, part in zip(runs, parts_of, strict=True)
    ]
    facts: dict[str, Any] = {
        "command": command,
        "recipe": recipe_to_dict(recipe),
        "init_weights": None,
        "joined": told,
        "git_commit": git_commit(),
        "tools": tools(),
    }
    write_facts(out / "run.json", largest.facts | facts)
    return load_run(out)


def _joined_recipe(
    runs: Sequence[Run], parts: Sequence[EnsemblePart], largest: Recipe, name: str
) -> Recipe:
    members = [_member(run.recipe, part) for run, part in zip(runs, parts, strict=True)]
    told_of = {key: getattr(runs[0].recipe, key) for key in _TEXTS}
    return replace(largest, name=name, init_weights=None, joined=tuple(members), **told_of)


def _weights_by_folder(runs: Sequence[Run], largest: Run) -> dict[str, list[Path]]:
    """Return the weight files of each network to join; raises `RunError` if one is missing."""
    folders = [f"fold-{fold}" for fold in largest.held_out_folds]
    if largest.recipe.validation == "folds":
        folders.append("final")
    return {folder: [_weights(run, folder) for run in runs] for folder in folders}


def _join_networks(
    runs: Sequence[Run], weights: dict[str, list[Path]], recipe: Recipe, largest: Run, out: Path
) -> None:
    """Write the joined network of each folder."""
    samples = open_samples(largest)
    with progress_bar(total=len(weights), desc="networks to join", unit="network") as bar:
        for folder, paths in weights.items():
            parts = [load_network(path, run.recipe) for path, run in zip(paths, runs, strict=True)]
            network = ChestNet.joined(parts, recipe)
            fit_novelty(network, _learned_from(largest, samples, folder), recipe.size)
            save_network(out / folder / "model.safetensors", network)
            bar.update()


def _refuse_strangers(runs: Sequence[Run]) -> None:
    """Raise `RunError` unless the run directories have one task and one split of the same
    images.
    """
    first = runs[0]
    if len(runs) == 1:
        raise RunError(
            f"{first.path} alone has nothing to be joined with: name two run directories or more"
        )
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise RunError("one run directory is named twice: its mean with itself is itself")
    for run in runs[1:]:
        differing = [
            key for key in _ALIKE if getattr(run.recipe, key) != getattr(first.recipe, key)
        ]
        if differing:
            raise RunError(
                f"{run.path} and {first.path} do not go together: {', '.join(differing)} differ"
            )
        if run.splits_csv.read_bytes() != first.splits_csv.read_bytes():
            raise RunError(
                f"{run.path} and {first.path} were split otherwise, or learned from other images"
            )
    for run in runs:
        if run.recipe.metadata or run.recipe.joined:
            raise RunError(
                f"{run.path} reads age, sex and view, or was joined itself: such run directories "
                f"are not joined"
            )


def _parts(
    paths: Sequence[Path], whether: Sequence[Path], where: Sequence[Path]
) -> list[EnsemblePart]:
    """Return the part of each run directory; raises `RunError` if none decides, or none draws."""
    usual: EnsemblePart = "whether" if where else "both"
    part_of: dict[Path, EnsemblePart] = {path.resolve(): usual for path in paths}
    named: list[tuple[Path, EnsemblePart]] = [(path, "whether") for path in whether]
    named += [(path, "where") for path in where]
    for path, part in named:
        if path.resolve() not in part_of:
            raise RunError(f"{path} is none of the run directories to join")
        part_of[path.resolve()] = part
    parts = [part_of[path.resolve()] for path in paths]
    if whether and {*parts} != {"whether", "where"}:
        raise RunError("if some only decide, all others must be named with --where")
    if {*parts} == {"where"}:
        raise RunError("one run directory must decide: name fewer with --where")
    return parts


def _member(recipe: Recipe, part: EnsemblePart) -> EnsembleMember:
    return EnsembleMember(
        network=recipe.network, normalisation=recipe.normalisation, size=recipe.size, part=part
    )


def _take_data(run: Run, out: Path) -> None:
    """Take over index, split and cache. Large files are hard-linked if the disk allows it."""
    (out / "cache").mkdir(parents=True, exist_ok=True)
    for path in ("index.csv", "splits.csv"):
        shutil.copyfile(run.path / path, out / path)
    for source in (run.path / "cache").iterdir():
        target = out / "cache" / source.name
        target.unlink(missing_ok=True)
        with suppress(OSError):
            os.link(source.resolve(), target)
        if not target.exists():
            shutil.copyfile(source, target)


def _weights(run: Run, folder: str) -> Path:
    return run.final_weights if folder == "final" else run.fold_weights(_fold(folder))


def _learned_from(run: Run, samples: Samples, folder: str) -> Samples:
    """Return the images that a run directory's network in `folder` learned from, but those that are
    not measured on.
    """
    learned_N = run.measured_N & (folder == "final" or run.fold_N != _fold(folder))
    return samples.take(np.flatnonzero(learned_N))


def _fold(folder: str) -> int:
    return int(folder.removeprefix("fold-"))
