"""`python -m training compare` and `join`."""

import argparse
import os
from pathlib import Path

from training.data.arguments import (
    ON_INTERRUPT,
    Commands,
    add_settings,
    add_training_data,
    command_text,
)
from training.recipe.catalogue import recipe_named
from training.recipe.override import override


def add(commands: Commands) -> None:
    """Add the commands to the parser."""
    _add_compare(commands)
    _add_join(commands)


def _add_compare(commands: Commands) -> None:
    compare = commands.add_parser(
        "compare",
        help="train a recipe under several treatments of its imbalance, or other changes, and "
        "compare them",
        description=(
            "Train RECIPE once for each variant and seed, on one split; write OUT/comparison.json "
            "and OUT/report.html: the variants' figures, paired intervals of their differences, "
            "confusion matrices. The same command resumes after an interruption."
        ),
    )
    compare.add_argument("recipe", metavar="RECIPE", help="name of a recipe, as train takes it")
    compare.add_argument(
        "--out", type=Path, required=True, metavar="OUT", help="folder to write, or to resume"
    )
    add_training_data(compare)
    compare.add_argument(
        "--variants",
        "--arms",  # its name until version 0.2
        default="sampler,class-weights,generated",
        metavar="A,B",
        help="treatments, or key=value, or several joined by + (generated+epochs=8); default: "
        "%(default)s",
    )
    compare.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="seeds a variant; default: %(default)s"
    )
    add_settings(compare)
    compare.set_defaults(run=_compare, on_interrupt=ON_INTERRUPT)


def _add_join(commands: Commands) -> None:
    join = commands.add_parser(
        "join",
        help="make an ensemble: one run directory of several, whose logit is the mean of theirs",
        description=(
            "Put the networks of finished run directories side by side: one task, one split, any "
            "networks and sizes. Each RUN counts once. The result is exported and evaluated as "
            "any run directory; train the run directories with the same split_seed."
        ),
    )
    join.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="two folders or more that train wrote"
    )
    join.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder to write")
    join.add_argument(
        "--name", default="joined", metavar="NAME", help="name of its recipe; default: %(default)s"
    )
    for option, does in (
        ("--whether", "only decides: its logit counts, and those of --where draw the map"),
        ("--where", "only draws the map: its logit is left out, and all others decide"),
    ):
        join.add_argument(
            option,
            type=Path,
            action="append",
            default=[],
            metavar="RUN",
            help=f"one of these that {does}; may be repeated",
        )
    join.set_defaults(run=_join)


def _compare(options: argparse.Namespace, words: list[str]) -> None:
    # threads that spin on a busy machine slow each other down
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from training.experiments.compare import compare  # noqa: PLC0415 - torch comes with it
    from training.experiments.variants import split_variants  # noqa: PLC0415

    compare(
        override(recipe_named(options.recipe), options.set),
        [folder.path for folder in options.data],
        options.out,
        variants=split_variants(options.variants),
        seeds=options.seeds,
        command=command_text(words),
        groups=options.groups,
        measure_on=options.measure_on,
        weights=[folder.weight for folder in options.data],
    )


def _join(options: argparse.Namespace, words: list[str]) -> None:
    from training.experiments.ensemble import join  # noqa: PLC0415 - torch comes with it

    run = join(
        options.runs,
        options.out,
        options.name,
        command_text(words),
        whether=options.whether,
        where=options.where,
    )
    print(
        f"joined: {run.path}; next: python -m training export {run.path} --store model_store "
        f"--model NAME --version N"
    )
