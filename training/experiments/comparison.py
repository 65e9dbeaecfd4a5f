"""The figures of a comparison: comparison.json.

Shape suffixes: A variants, S seeds, K readings (the plain images first, then each corruption), N
images.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from training.data.index import read_table
from training.experiments.held_out_logits import HeldOutLogits, read_logits
from training.fit.batches import steps_per_epoch
from training.fit.run_dir import Run
from training.recipe.schema import Recipe, recipe_to_dict
from training.stats.metrics import Floats, at_threshold
from training.stats.paired_comparison import MEASURES, Resampled, mcnemar, resample

_MIN_SEEDS = 3
"""Seeds needed to call one variant better than another."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Bounded(_Part):
    """A figure with its 95 % interval."""

    value: float
    ci95: list[float]

    def text(self, sign: str = "") -> str:
        """Return the figure for the console."""
        low, high = self.ci95
        return f"{self.value:{sign}.4f} ({low:{sign}.3f} to {high:{sign}.3f})"


class SeedFigures(_Part):
    """Figures of one variant with one seed; rates at logit 0."""

    auroc: float
    stressed_auroc: float
    accuracy: float
    sensitivity: float
    specificity: float
    confusion: list[list[int]]
    steps: int
    """Optimizer steps of the first model."""


class VariantFigures(_Part):
    """Figures of one variant."""

    mean: dict[str, Bounded]
    """Over seeds, by measure."""
    by_seed: dict[str, SeedFigures]


class Test(_Part):
    """McNemar's exact test of the decisions of two models at logit 0."""

    only_one_right: int
    only_other_right: int
    p_value: float


class Pair(_Part):
    """Two variants, and by how much the first exceeds the second."""

    one: str
    other: str
    difference: dict[str, Bounded]
    mcnemar: list[Test]
    """One for each seed."""


class Comparison(_Part):
    """comparison.json."""

    basis: str
    recipe: dict[str, Any]
    data: dict[str, Any]
    measures: list[str]
    variants: dict[str, VariantFigures]
    pairs: list[Pair]
    verdict: str


def measure_comparison(
    recipe: Recipe, runs: Mapping[tuple[str, int], Run], variants: Sequence[str], seeds: int
) -> Comparison:
    """Measure finished run directories, by variant and number of the seed."""
    found = {key: read_logits(run.path / "held_back.csv") for key, run in runs.items()}
    first = found[variants[0], 0]
    logit_ASKN = np.array(
        [[found[variant, seed].logit_KN for seed in range(seeds)] for variant in variants]
    )
    resampled = resample(first.label_N, logit_ASKN, first.groups_N)
    runs_of = {variant: [runs[variant, seed] for seed in range(seeds)] for variant in variants}
    pairs = [
        _pair(resampled, first, logit_ASKN, variants, pair)
        for pair in combinations(range(len(variants)), 2)
    ]
    return Comparison(
        basis=_basis(recipe, runs[variants[0], 0], first, seeds),
        recipe=recipe_to_dict(recipe),
        data=runs[variants[0], 0].facts["data"],
        measures=list(MEASURES),
        variants={
            variant: _variant_figures(resampled, number, first, logit_ASKN, runs_of[variant])
            for number, variant in enumerate(variants)
        },
        pairs=pairs,
        verdict=_verdict(pairs, seeds),
    )


def summary(comparison: Comparison) -> Iterator[str]:
    """Return the comparison as a few lines for the console."""
    yield comparison.basis
    for variant, figures in comparison.variants.items():
        shown = ", ".join(f"{measure} {figures.mean[measure].text()}" for measure in MEASURES)
        matrices = [model.confusion for model in figures.by_seed.values()]
        yield f"{variant:14} {shown}, [[tn, fp], [fn, tp]] by seed {matrices}"
    for pair in comparison.pairs:
        shown = ", ".join(
            f"{measure} {pair.difference[measure].text(sign='+')}" for measure in MEASURES
        )
        p_values = [round(test.p_value, 3) for test in pair.mcnemar]
        yield f"{pair.one} minus {pair.other}: {shown}; McNemar p by seed {p_values}"
    yield comparison.verdict


def _basis(recipe: Recipe, run: Run, held_out: HeldOutLogits, seeds: int) -> str:
    images = len(held_out.label_N)
    left_out = images if recipe.validation == "holdout" else images // recipe.folds
    return (
        f"{images:,} held-out images ({int(held_out.label_N.sum()):,} positive) of "
        f"{len(set(held_out.groups_N)):,} persons; {seeds} seeds a variant, one split; about "
        f"{len(run.index) - left_out:,} images to learn from. Decisions at logit 0. Intervals: "
        "95 %, persons and seeds drawn with replacement, the same ones for both variants of a "
        "difference."
    )


def _variant_figures(
    found: Resampled,
    variant: int,
    held_out: HeldOutLogits,
    logit_ASKN: Floats,
    runs: Sequence[Run],
) -> VariantFigures:
    means = {measure: found.mean(variant, number) for number, measure in enumerate(MEASURES)}
    return VariantFigures(
        mean={
            measure: Bounded(value=value, ci95=bounds) for measure, (value, bounds) in means.items()
        },
        by_seed={
            str(run.recipe.seed): SeedFigures(
                **dict(zip(MEASURES, found.value_ASM[variant, seed].tolist(), strict=True)),
                confusion=at_threshold(
                    held_out.label_N, logit_ASKN[variant, seed, 0], 0.0
                ).confusion,
                steps=_steps(run),
            )
            for seed, run in enumerate(runs)
        },
    )


def _steps(run: Run) -> int:
    """Count the optimizer's steps of the first model: generated images make an epoch longer."""
    fold = run.held_out_folds[0]
    table = run.path / f"fold-{fold}" / "generated" / "generated.csv"
    images = int((run.fold_N != fold).sum()) + (len(read_table(table)) if table.is_file() else 0)
    return steps_per_epoch(images, run.recipe.batch) * run.recipe.total_epochs


def _pair(
    found: Resampled,
    held_out: HeldOutLogits,
    logit_ASKN: Floats,
    variants: Sequence[str],
    pair: tuple[int, int],
) -> Pair:
    one, other = pair
    differences = {
        measure: found.difference(one, other, number) for number, measure in enumerate(MEASURES)
    }
    tests = [
        mcnemar(held_out.label_N, first[0], second[0])
        for first, second in zip(logit_ASKN[one], logit_ASKN[other], strict=True)
    ]
    return Pair(
        one=variants[one],
        other=variants[other],
        difference={
            measure: Bounded(value=value, ci95=bounds)
            for measure, (value, bounds) in differences.items()
        },
        mcnemar=[
            Test(only_one_right=only_one, only_other_right=only_other, p_value=p_value)
            for only_one, only_other, p_value in tests
        ],
    )


def _verdict(pairs: Sequence[Pair], seeds: int) -> str:
    """Return a sentence on which variants differ beyond their interval in the measure that recipes
    are chosen by.
    """
    if seeds < _MIN_SEEDS:
        return f"Fewer than {_MIN_SEEDS} seeds: a difference may come from the seed alone."
    found = []
    for pair in pairs:
        difference = pair.difference["stressed_auroc"]
        low, high = difference.ci95
        if not low <= 0 <= high:
            names = (pair.one, pair.other)
            better, worse = names if difference.value > 0 else names[::-1]
            found.append(f"{better} beats {worse} by {abs(difference.value):.4f}")
    if not found:
        return (
            "By the AUROC over plain and corrupted images, no variant beats another beyond "
            "its interval."
        )
    return f"By the AUROC over plain and corrupted images: {'; '.join(found)}."
