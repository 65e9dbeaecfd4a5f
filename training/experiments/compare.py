"""`training compare`: train variants of one recipe on one split, with several seeds.

    OUT/
        cache/                decoded images, shared by all run directories
        <variant>-seed<n>/        a run directory each; held_back.csv: its logits on held-out images
        comparison.json       every figure
        report.html the same figures as a page

All run directories share the split, so variants differ only in their change. The same command
resumes an interrupted comparison.

Shape suffixes: A variants, S seeds, K readings (the plain images first, then each corruption), N
images, H rows, W columns.
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
from training.evaluation.corruptions import STRESSES, corrupted
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
"""Seeds needed to call one variant better than another."""

_SHARED = ("seed", "split_seed", "folds", "validation")
"""What all variants have alike: the images that each model is tried on."""


_BEGINS = rf"(?:{'|'.join(get_args(Imbalance))}|[a-z_][a-z0-9_.]*=)"
"""How a change begins, a treatment or a `key=`: commas and pluses before anything else belong to a
value."""


def split_variants(text: str) -> list[str]:
    """Split the text of `--variants` into variants: `sampler,generated+epochs=8,2` are two."""
    variants: list[str] = []
    for piece in text.split(","):
        if variants and "=" in variants[-1] and not re.match(_BEGINS, piece):
            variants[-1] += f",{piece}"
        else:
            variants.append(piece)
    return variants


def compare(  # noqa: PLR0913 - the command's own options
    recipe: Recipe,
    data_dir: Path,
    out: Path,
    *,
    variants: Sequence[str],
    seeds: int,
    command: str,
    groups: Path | None = None,
) -> dict[str, Any]:
    """Train every variant with every seed, and write comparison.json and report.html.

    Args:
        recipe: what all variants share.
        data_dir: the data folder.
        out: folder of the run directories and the comparison.
        variants: at least two: each a treatment of the imbalance, a `key=value` of the recipe, or
            several joined by `+`.
        seeds: how many seeds, from the recipe's own upwards.
        command: the command line, for run.json.
        groups: a table of persons (ImageId, person_group).

    Returns:
        What comparison.json holds.

    Raises:
        ConfigError: fewer than two variants, one named twice, no such treatment or field, one that
            all share, or no seed.
    """
    if len(set(map(_folder_name, variants))) < max(2, len(variants)):
        raise ConfigError(
            "--variants needs two variants or more, each once, with commas between them"
        )
    if seeds < 1:
        raise ConfigError("--seeds needs one seed or more")
    recipes = {
        (variant, seed): variant_recipe_of(recipe, variant, recipe.seed + seed)
        for seed in range(seeds)
        for variant in variants
    }
    runs: dict[tuple[str, int], Run] = {}
    with progress_bar(
        total=len(recipes), desc="models to compare", unit="model", position=0
    ) as bar:
        for (variant, seed), variant_recipe in recipes.items():
            path = out / f"{_folder_name(variant)}-seed{variant_recipe.seed}"
            _share_cache(out / "cache", path)
            runs[variant, seed] = open_run(variant_recipe, data_dir, path, command, groups=groups)
            train(runs[variant, seed], final=False)
            _predict_held_back(runs[variant, seed])
            bar.update()
            bar.refresh()
    comparison = _measure(recipe, runs, list(variants), seeds)
    (out / "comparison.json").write_text(json.dumps(comparison, indent=2) + "\n", encoding="utf-8")
    (out / "report.html").write_text(comparison_page(comparison), encoding="utf-8")
    print("\n".join((*summary(comparison), f"report: {out / 'report.html'}")))
    return comparison


def summary(comparison: dict[str, Any]) -> Iterator[str]:
    """Return the comparison as a few lines for the console."""
    yield comparison["basis"]
    for variant, figures in comparison["variants"].items():
        shown = ", ".join(f"{measure} {_text(figures['mean'][measure])}" for measure in MEASURES)
        yield (
            f"{variant:14} {shown}, [[tn, fp], [fn, tp]] by seed "
            f"{[model['confusion'] for model in figures['by_seed'].values()]}"
        )
    for pair in comparison["pairs"]:
        shown = ", ".join(
            f"{measure} {_text(pair['difference'][measure], sign='+')}" for measure in MEASURES
        )
        p_values = [round(test["p_value"], 3) for test in pair["mcnemar"]]
        yield f"{pair['one']} minus {pair['other']}: {shown}; McNemar p by seed {p_values}"
    yield comparison["verdict"]


def variant_recipe_of(recipe: Recipe, variant: str, seed: int) -> Recipe:
    """Return the recipe of one variant and seed, on the split that all share; raises
    `ConfigError`.
    """
    split_seed = recipe.seed if recipe.split_seed is None else recipe.split_seed
    changes = [
        change if "=" in change else f"imbalance={change}"
        for change in re.split(rf"\+(?={_BEGINS})", variant)
    ]
    keys = [change.partition("=")[0] for change in changes]
    if len(set(keys)) < len(keys):
        raise ConfigError(f"{variant}: a variant may change each field once")
    if shared := [key for key in keys if key in _SHARED]:
        raise ConfigError(
            f"{variant}: all variants share one split and its seeds; change {shared[0]} for all "
            f"of them, by --set"
        )
    return override(recipe, [*changes, f"seed={seed}", f"split_seed={split_seed}"])


def _folder_name(variant: str) -> str:
    """Return a variant's folder name: the variant itself, without the folders of a path."""
    return re.sub(r"[^A-Za-z0-9_.,=+-]", "_", variant)


def _share_cache(cache: Path, run_dir: Path) -> None:
    """Let all run directories read one cache: it depends on the data and the size alone."""
    cache.mkdir(parents=True, exist_ok=True)
    run_dir.mkdir(exist_ok=True)
    if not (run_dir / "cache").exists():
        (run_dir / "cache").symlink_to(Path("..") / cache.name, target_is_directory=True)


def _predict_held_back(run: Run) -> None:
    """Write the logits of held-out images and of their corrupted copies, each from the network that
    had not seen it.
    """
    path = run.path / "held_back.csv"
    if path.is_file():
        return
    lines: list[list[str]] = []
    for fold in run.held_back_folds:
        positions = run.held_back(fold)
        logit_KN = _logits(run, fold)
        for column, position in enumerate(positions):
            row = run.index.rows[position]
            lines.append(
                [
                    row.image_id,
                    row.person_group,
                    str(row.label),
                    *(f"{logit:.6f}" for logit in logit_KN[:, column]),
                ]
            )
    draft = path.with_suffix(".draft")
    write_table(draft, ["image_id", "person_group", "label", *READINGS], lines)
    draft.replace(path)


@torch.inference_mode()
def _logits(run: Run, fold: int) -> Floats:
    network, size = (
        load_network(run.fold_weights(fold), run.recipe).to(choose_device()),
        run.recipe.size,
    )
    position_N = run.held_back(fold)
    held_back, logits = open_samples(run).take(position_N), []
    for name in READINGS:
        samples = replace(held_back, image_NHW=_changed(name, held_back.image_NHW, position_N))
        batches = plain_batches(samples, 64, size, choose_device())
        logit_N = torch.cat(
            [network.forward_logit(batch.image_N1HW, batch.metadata_NM).cpu() for batch in batches]
        )
        logits.append(logit_N.numpy())
    return np.array(logits, dtype=np.float64)


def _changed(
    profile: str, image_NHW: NDArray[np.uint8], position_N: NDArray[np.int64]
) -> NDArray[np.uint8]:
    if profile == "plain":
        return image_NHW
    return np.stack(
        [
            corrupted(profile, image_HW, int(i))
            for i, image_HW in zip(position_N, image_NHW, strict=True)
        ]
    )


def _measure(
    recipe: Recipe, runs: dict[tuple[str, int], Run], variants: list[str], seeds: int
) -> dict[str, Any]:
    tables = {key: read_table(run.path / "held_back.csv") for key, run in runs.items()}
    lines = tables[variants[0], 0]
    label_N, groups_N = (
        np.array([int(line["label"]) for line in lines]),
        [line["person_group"] for line in lines],
    )
    logit_ASKN = np.array(
        [[_columns(tables[variant, seed]) for seed in range(seeds)] for variant in variants]
    )
    found = resample(label_N, logit_ASKN, groups_N)
    first = runs[variants[0], 0]
    learned = len(first.index) - (
        len(lines) if recipe.validation == "holdout" else len(lines) // recipe.folds
    )
    pairs = [
        _pair(found, label_N, logit_ASKN, variants, pair)
        for pair in combinations(range(len(variants)), 2)
    ]
    return {
        "basis": (
            f"{len(lines):,} held-out images ({int(label_N.sum()):,} positive) of "
            f"{len(set(groups_N)):,} persons; {seeds} "
            f"seeds a variant, one split; about {learned:,} images to learn from. Decisions at "
            f"logit 0. Intervals: 95 %, persons "
            "and seeds drawn with replacement, the same ones for both variants of a difference."
        ),
        "recipe": recipe_to_dict(recipe),
        "data": first.facts["data"],
        "measures": list(MEASURES),
        "variants": {
            variant: _arm_figures(
                found, a, label_N, logit_ASKN[a], [runs[variant, seed] for seed in range(seeds)]
            )
            for a, variant in enumerate(variants)
        },
        "pairs": pairs,
        "verdict": _verdict(pairs, seeds),
    }


def _columns(table: list[dict[str, str]]) -> list[list[float]]:
    return [[float(line[name]) for line in table] for name in READINGS]


def _arm_figures(
    found: Resampled, variant: int, label_N: Labels01, logit_SKN: Floats, runs: list[Run]
) -> dict[str, Any]:
    means = {measure: found.mean(variant, m) for m, measure in enumerate(MEASURES)}
    return {
        "mean": {
            measure: {"value": value, "ci95": bounds} for measure, (value, bounds) in means.items()
        },
        "by_seed": {
            str(run.recipe.seed): {
                **dict(zip(MEASURES, found.value_ASM[variant, seed].tolist(), strict=True)),
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


def _pair(
    found: Resampled,
    label_N: Labels01,
    logit_ASKN: Floats,
    variants: list[str],
    pair: tuple[int, int],
) -> dict[str, Any]:
    one, other = pair
    differences = {measure: found.difference(one, other, m) for m, measure in enumerate(MEASURES)}
    tests = [
        mcnemar(label_N, first[0], second[0])
        for first, second in zip(logit_ASKN[one], logit_ASKN[other], strict=True)
    ]
    return {
        "one": variants[one],
        "other": variants[other],
        "difference": {
            measure: {"value": value, "ci95": bounds}
            for measure, (value, bounds) in differences.items()
        },
        "mcnemar": [
            {"only_one_right": only_one, "only_other_right": only_other, "p_value": p_value}
            for only_one, only_other, p_value in tests
        ],
    }


def _verdict(pairs: Sequence[dict[str, Any]], seeds: int) -> str:
    """Return a sentence on which variants differ beyond their interval in the measure that recipes
    are chosen by.
    """
    if seeds < _MIN_SEEDS:
        return f"Fewer than {_MIN_SEEDS} seeds: whatever differs may be the seed's doing."
    found = []
    for pair in pairs:
        value, (low, high) = (
            pair["difference"]["stressed_auroc"]["value"],
            pair["difference"]["stressed_auroc"]["ci95"],
        )
        if not low <= 0 <= high:
            better, worse = (
                (pair["one"], pair["other"]) if value > 0 else (pair["other"], pair["one"])
            )
            found.append(f"{better} beats {worse} by {abs(value):.4f}")
    if not found:
        return (
            "By the AUROC over plain and corrupted images, no variant beats another beyond "
            "its interval."
        )
    return f"By the AUROC over plain and corrupted images: {'; '.join(found)}."


def _text(figure: dict[str, Any], sign: str = "") -> str:
    low, high = figure["ci95"]
    return f"{figure['value']:{sign}.4f} ({low:{sign}.3f} to {high:{sign}.3f})"
