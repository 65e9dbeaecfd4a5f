"""`training compare`: train variants of one recipe on one split, with several seeds.

    OUT/
        cache/                decoded images, shared by all run directories
        <variant>-seed<n>/    a run directory each; held_back.csv: its logits on held-out images
        comparison.json       every figure
        report.html           the same figures as a page

All run directories share the split, so variants differ only in their change. The same command
resumes an interrupted comparison.
"""

from collections.abc import Sequence
from pathlib import Path

from training.experiments.comparison import Comparison, measure_comparison, summary
from training.experiments.comparison_page import comparison_page
from training.experiments.held_out_logits import predict_held_out
from training.experiments.variants import folder_name, variant_recipe_of
from training.fit.start_or_resume import open_run
from training.fit.train import train
from training.progress import progress_bar
from training.recipe.schema import Recipe, RecipeError


def compare(  # noqa: PLR0913 - the command's own options
    recipe: Recipe,
    data: Sequence[Path],
    out: Path,
    *,
    variants: Sequence[str],
    seeds: int,
    command: str,
    groups: Path | None = None,
    measure_on: Sequence[str] = (),
    weights: Sequence[float] = (),
) -> Comparison:
    """Train every variant with every seed, and write comparison.json and report.html.

    Args:
        recipe: what all variants share.
        data: the data folders.
        out: folder of the run directories and the comparison.
        variants: at least two: each a treatment of the imbalance, a `key=value` of the recipe, or
            several joined by `+`.
        seeds: how many seeds, from the recipe's own upwards.
        command: the command line, for run.json.
        groups: a table of persons (ImageId, person_group).
        measure_on: sources that figures come from; all images without it.
        weights: of the data folders, in the loss.

    Returns:
        The content of comparison.json.

    Raises:
        RecipeError: fewer than two variants, one named twice, no such treatment or field, one that
            all share, or no seed.
    """
    _refuse_too_few(variants, seeds)
    recipes = {
        (variant, seed): variant_recipe_of(recipe, variant, recipe.seed + seed)
        for seed in range(seeds)
        for variant in variants
    }
    runs = {}
    with progress_bar(total=len(recipes), desc="models", unit="model", position=0) as bar:
        for (variant, seed), of_variant in recipes.items():
            path = out / f"{folder_name(variant)}-seed{of_variant.seed}"
            _share_cache(out / "cache", path)
            run = open_run(
                of_variant,
                data,
                path,
                command,
                groups=groups,
                measure_on=measure_on,
                weights=weights,
            )
            train(run, final=False)
            predict_held_out(run)
            runs[variant, seed] = run
            bar.update()
            bar.refresh()
    comparison = measure_comparison(recipe, runs, variants, seeds)
    _write(comparison, out)
    return comparison


def _refuse_too_few(variants: Sequence[str], seeds: int) -> None:
    if len(set(map(folder_name, variants))) < max(2, len(variants)):
        raise RecipeError(
            "--variants needs two variants or more, each once, with commas between them"
        )
    if seeds < 1:
        raise RecipeError("--seeds needs one seed or more")


def _write(comparison: Comparison, out: Path) -> None:
    text = comparison.model_dump_json(indent=2)
    (out / "comparison.json").write_text(text + "\n", encoding="utf-8")
    (out / "report.html").write_text(comparison_page(comparison), encoding="utf-8")
    print("\n".join((*summary(comparison), f"report: {out / 'report.html'}")))


def _share_cache(cache: Path, run_dir: Path) -> None:
    """Let all run directories read one cache: it depends on the data and the size alone."""
    cache.mkdir(parents=True, exist_ok=True)
    run_dir.mkdir(exist_ok=True)
    if not (run_dir / "cache").exists():
        (run_dir / "cache").symlink_to(Path("..") / cache.name, target_is_directory=True)
