"""`training compare`: one recipe under several treatments of its imbalance, or otherwise changed, on one split and its seeds.

    OUT/
        cache/                decoded images, shared by all RUNs
        <arm>-seed<n>/        a RUN each; held_back.csv: its logits on images that it had not learned from
        comparison.json       every figure
        report.html           the same to look at

The split is one for all, so seeds differ in what is drawn and arms in nothing but their change.
The same command goes on where an interrupted one was.

Shape suffixes: A arms, S seeds, K readings (the plain images first, then each stress), N images, H rows, W columns.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from training.data.index import read_table, write_table
from training.evaluation.corruptions import STRESSES, stressed
from training.experiments.comparison_page import comparison_page
from training.fit.batches import open_samples, plain_batches, steps_per_epoch
from training.fit.open_run import open_run
from training.fit.run_dir import Run, load_network
from training.fit.train import choose_device, train
from training.progress import progress_bar
from training.recipe.schema import ConfigError, Imbalance, Recipe, override, recipe_to_dict
from training.stats.metrics import Floats, Labels01, at_threshold
from training.stats.paired import MEASURES, Resampled, mcnemar, resample

READINGS = ("plain", *STRESSES)

_MIN_SEEDS = 3
"""Seeds that it takes to say that one arm beats another."""

_SHARED = ("seed", "split_seed", "folds", "validation")
"""What all arms have alike: the images that each model is tried on."""


_BEGINS = rf"(?:{'|'.join(get_args(Imbalance))}|[a-z_][a-z0-9_.]*=)"
"""How a change begins, a treatment or a `key=`: commas and pluses before anything else belong to a value."""


def split_arms(text: str) -> list[str]:
    """Divide what `--arms` says into arms: `sampler,generated+epochs=8,2` are two."""
    arms: list[str] = []
    for piece in text.split(","):
        if arms and "=" in arms[-1] and not re.match(_BEGINS, piece):
            arms[-1] += f",{piece}"
        else:
            arms.append(piece)
    return arms


def compare(  # noqa: PLR0913 - the command's own options
    recipe: Recipe, data_dir: Path, out: Path, *, arms: Sequence[str], seeds: int, command: str, groups: Path | None = None
) -> dict[str, Any]:
    """Train every arm with every seed, and write comparison.json and report.html.

    Args:
        recipe: what all arms share.
        data_dir: the data folder.
        out: where the RUNs and the comparison go.
        arms: two at least, each a treatment of the imbalance, another `key=value` of the recipe, or several joined by `+`.
        seeds: how many seeds, from the recipe's own upwards.
        command: what the RUNs say they came from.
        groups: a table of persons beyond what the data folder itself tells.

    Returns:
        What comparison.json holds.

    Raises:
        ConfigError: fewer than two arms, one named twice, no such treatment or field, one that all share, or no seed.
    """
    if len(set(map(_folder_name, arms))) < max(2, len(arms)):
        raise ConfigError("--arms needs two arms or more, each once, with commas between them")
    if seeds < 1:
        raise ConfigError("--seeds needs one seed or more")
    recipes = {(arm, seed): arm_recipe(recipe, arm, recipe.seed + seed) for seed in range(seeds) for arm in arms}
    runs: dict[tuple[str, int], Run] = {}
    with progress_bar(total=len(recipes), desc="models to compare", unit="model", position=0) as bar:
        for (arm, seed), variant in recipes.items():
            path = out / f"{_folder_name(arm)}-seed{variant.seed}"
            _share_cache(out / "cache", path)
            runs[arm, seed] = open_run(variant, data_dir, path, command, groups=groups)
            train(runs[arm, seed], final=False)
            _predict_held_back(runs[arm, seed])
            bar.update()
            bar.refresh()
    comparison = _measure(recipe, runs, list(arms), seeds)
    (out / "comparison.json").write_text(json.dumps(comparison, indent=2) + "\n", encoding="utf-8")
    (out / "report.html").write_text(comparison_page(comparison), encoding="utf-8")
    print("\n".join((*summary(comparison), f"report: {out / 'report.html'}")))
    return comparison


def summary(comparison: dict[str, Any]) -> Iterator[str]:
    """Say the comparison in a few lines for the console."""
    yield comparison["basis"]
    for arm, figures in comparison["arms"].items():
        shown = ", ".join(f"{measure} {_text(figures['mean'][measure])}" for measure in MEASURES)
        yield f"{arm:14} {shown}, [[tn, fp], [fn, tp]] by seed {[model['confusion'] for model in figures['by_seed'].values()]}"
    for pair in comparison["pairs"]:
        shown = ", ".join(f"{measure} {_text(pair['difference'][measure], sign='+')}" for measure in MEASURES)
        p_values = [round(test["p_value"], 3) for test in pair["mcnemar"]]
        yield f"{pair['one']} minus {pair['other']}: {shown}; McNemar p by seed {p_values}"
    yield comparison["verdict"]


def arm_recipe(recipe: Recipe, arm: str, seed: int) -> Recipe:
    """Give the recipe of one arm and seed, on the split that all share; raises `ConfigError`."""
    split_seed = recipe.seed if recipe.split_seed is None else recipe.split_seed
    changes = [change if "=" in change else f"imbalance={change}" for change in re.split(rf"\+(?={_BEGINS})", arm)]
    keys = [change.partition("=")[0] for change in changes]
    if len(set(keys)) < len(keys):
        raise ConfigError(f"{arm}: an arm may change each field once")
    if shared := [key for key in keys if key in _SHARED]:
        raise ConfigError(f"{arm}: all arms share one split and its seeds; change {shared[0]} for all of them, by --set")
    return override(recipe, [*changes, f"seed={seed}", f"split_seed={split_seed}"])


def _folder_name(arm: str) -> str:
    """Name an arm's folder: as the arm itself, where no path stands in it."""
    return re.sub(r"[^A-Za-z0-9_.,=+-]", "_", arm)


def _share_cache(cache: Path, run_dir: Path) -> None:
    """Let all RUNs read one cache: it depends on the data and the size alone."""
    cache.mkdir(parents=True, exist_ok=True)
    run_dir.mkdir(exist_ok=True)
    if not (run_dir / "cache").exists():
        (run_dir / "cache").symlink_to(Path("..") / cache.name, target_is_directory=True)


def _predict_held_back(run: Run) -> None:
    """Write the logits of held-back images and of their stressed copies, each from the network that had not seen it."""
    path = run.path / "held_back.csv"
    if path.is_file():
        return
    lines: list[list[str]] = []
    for fold in run.held_back_folds:
        positions = run.held_back(fold)
        logit_KN = _logits(run, fold)
        for column, position in enumerate(positions):
            row = run.index.rows[position]
            lines.append([row.image_id, row.person_group, str(row.label), *(f"{logit:.6f}" for logit in logit_KN[:, column])])
    draft = path.with_suffix(".draft")
    write_table(draft, ["image_id", "person_group", "label", *READINGS], lines)
    draft.replace(path)


@torch.inference_mode()
def _logits(run: Run, fold: int) -> Floats:
    network, size = load_network(run.fold_weights(fold), run.recipe).to(choose_device()), run.recipe.size
    position_N = run.held_back(fold)
    held_back, logits = open_samples(run).take(position_N), []
    for name in READINGS:
        samples = replace(held_back, image_NHW=_changed(name, held_back.image_NHW, position_N))
        batches = plain_batches(samples, 64, size, choose_device())
        logit_N = torch.cat([network.forward_logit(batch.image_N1HW, batch.metadata_NM).cpu() for batch in batches])
        logits.append(logit_N.numpy())
    return np.array(logits, dtype=np.float64)


def _changed(profile: str, image_NHW: NDArray[np.uint8], position_N: NDArray[np.int64]) -> NDArray[np.uint8]:
    if profile == "plain":
        return image_NHW
    return np.stack([stressed(profile, image_HW, int(i)) for i, image_HW in zip(position_N, image_NHW, strict=True)])


def _measure(recipe: Recipe, runs: dict[tuple[str, int], Run], arms: list[str], seeds: int) -> dict[str, Any]:
    tables = {key: read_table(run.path / "held_back.csv") for key, run in runs.items()}
    lines = tables[arms[0], 0]
    label_N, groups_N = np.array([int(line["label"]) for line in lines]), [line["person_group"] for line in lines]
    logit_ASKN = np.array([[_columns(tables[arm, seed]) for seed in range(seeds)] for arm in arms])
    found = resample(label_N, logit_ASKN, groups_N)
    first = runs[arms[0], 0]
    learned = len(first.index) - (len(lines) if recipe.validation == "holdout" else len(lines) // recipe.folds)
    pairs = [_pair(found, label_N, logit_ASKN, arms, pair) for pair in combinations(range(len(arms)), 2)]
    return {
        "basis": (
            f"{len(lines):,} held-back images ({int(label_N.sum()):,} positive) of {len(set(groups_N)):,} persons; {seeds} "
            f"seeds an arm, one split; about {learned:,} images to learn from. Decisions at logit 0. Intervals: 95 %, persons "
            "and seeds drawn with replacement, the same ones for both arms of a difference."
        ),
        "recipe": recipe_to_dict(recipe),
        "data": first.facts["data"],
        "measures": list(MEASURES),
        "arms": {
            arm: _arm_figures(found, a, label_N, logit_ASKN[a], [runs[arm, seed] for seed in range(seeds)])
            for a, arm in enumerate(arms)
        },
        "pairs": pairs,
        "verdict": _verdict(pairs, seeds),
    }


def _columns(table: list[dict[str, str]]) -> list[list[float]]:
    return [[float(line[name]) for line in table] for name in READINGS]


def _arm_figures(found: Resampled, arm: int, label_N: Labels01, logit_SKN: Floats, runs: list[Run]) -> dict[str, Any]:
    means = {measure: found.mean(arm, m) for m, measure in enumerate(MEASURES)}
    return {
        "mean": {measure: {"value": value, "ci95": bounds} for measure, (value, bounds) in means.items()},
        "by_seed": {
            str(run.recipe.seed): {
                **dict(zip(MEASURES, found.value_ASM[arm, seed].tolist(), strict=True)),
                "confusion": at_threshold(label_N, logit_SKN[seed, 0], 0.0)["confusion"],
                "steps": _steps(run),
            }
            for seed, run in enumerate(runs)
        },
    }


def _steps(run: Run) -> int:
    """Count the optimizer's steps of the first model: generated images make an epoch longer."""
    fold = run.held_back_folds[0]
    table = run.path / f"fold-{fold}" / "generated" / "generated.csv"
    images = int((run.fold_N != fold).sum()) + (len(read_table(table)) if table.is_file() else 0)
    return steps_per_epoch(images, run.recipe.batch) * run.recipe.total_epochs


def _pair(found: Resampled, label_N: Labels01, logit_ASKN: Floats, arms: list[str], pair: tuple[int, int]) -> dict[str, Any]:
    one, other = pair
    differences = {measure: found.difference(one, other, m) for m, measure in enumerate(MEASURES)}
    tests = [mcnemar(label_N, first[0], second[0]) for first, second in zip(logit_ASKN[one], logit_ASKN[other], strict=True)]
    return {
        "one": arms[one],
        "other": arms[other],
        "difference": {measure: {"value": value, "ci95": bounds} for measure, (value, bounds) in differences.items()},
        "mcnemar": [
            {"only_one_right": only_one, "only_other_right": only_other, "p_value": p_value}
            for only_one, only_other, p_value in tests
        ],
    }


def _verdict(pairs: Sequence[dict[str, Any]], seeds: int) -> str:
    """Say which arms differ beyond their interval in the measure that recipes are chosen by; fewer than 3 seeds say nothing."""
    if seeds < _MIN_SEEDS:
        return f"Fewer than {_MIN_SEEDS} seeds: whatever differs may be the seed's doing."
    found = []
    for pair in pairs:
        value, (low, high) = pair["difference"]["stressed_auroc"]["value"], pair["difference"]["stressed_auroc"]["ci95"]
        if not low <= 0 <= high:
            better, worse = (pair["one"], pair["other"]) if value > 0 else (pair["other"], pair["one"])
            found.append(f"{better} beats {worse} by {abs(value):.4f}")
    if not found:
        return "By the AUROC over plain and stressed images, no arm beats another beyond its interval."
    return f"By the AUROC over plain and stressed images: {'; '.join(found)}."


def _text(figure: dict[str, Any], sign: str = "") -> str:
    low, high = figure["ci95"]
    return f"{figure['value']:{sign}.4f} ({low:{sign}.3f} to {high:{sign}.3f})"
