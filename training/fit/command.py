"""`python -m training train`."""

import argparse
import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from training.data.arguments import (
    ON_INTERRUPT,
    Commands,
    add_settings,
    add_training_data,
    command_text,
)
from training.recipe.catalogue import RECIPES, recipe_named
from training.recipe.override import known_keys, override

if TYPE_CHECKING:
    from training.fit.run_dir import Run

_HELP = """\
Train a recipe on a data folder and keep everything in a run directory (RUN).

  python -m training train smoke --data DIR --out runs/try        # minutes: does it all work?
  python -m training train pneumonia-efficientnet-b0 --data DIR --out runs/pneumonia
  python -m training train pneumothorax-masks --data DIR --out runs/pneumothorax
  python -m training train pneumothorax-efficientnet-b0 --data DIR --out runs/other \\
      --weights runs/pneumonia/final/model.safetensors

The same command resumes an interrupted run after its last finished epoch.
Several GPUs share a training under
`torchrun --standalone --nproc-per-node 4 -m training train ...`.
DIR is one of
  a SIIM tree (.dcm files at any depth, a csv with ImageId and EncodedPixels, and a
    groups.csv with ImageId and person_group if persons recur),
  a folder with NORMAL/ and PNEUMONIA/, or one with such a train/,
  a folder with a labels.csv (columns file, the finding, and more: see docs/training.md),
  ChestX-ray14 (Data_Entry_2017*.csv next to images*/; --set finding=effusion names the task).
Kaggle's SIIM-ACR set is such a tree as it comes: unpack it, put train-rle.csv beside the folder of
files, and give their common folder. Look at it first: python -m training explore --data DIR."""

_COLUMNS = 100


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    recipes = "\n".join(_entry(name, make.__doc__ or "") for name, make in RECIPES.items())
    keys = textwrap.fill(
        ", ".join(known_keys()), _COLUMNS, initial_indent="  ", subsequent_indent="  "
    )
    train = commands.add_parser(
        "train",
        help="train a recipe, or resume a run directory",
        description=_HELP,
        epilog=f"recipes:\n{recipes}\n\n"
        f"keys that --set knows (tuples with commas, none for nothing):\n{keys}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument("recipe", metavar="RECIPE", help="name of a recipe, see below")
    train.add_argument(
        "--out", type=Path, required=True, metavar="RUN", help="folder to write, or to resume"
    )
    add_training_data(train)
    train.add_argument(
        "--weights",
        metavar="FILE",
        help="start from a run directory's model.safetensors, a state dict with the names of "
        "torchvision, torchxrayvision or EVA-X, or `imagenet` (init_weights=FILE)",
    )
    add_settings(train)
    train.set_defaults(run=_train, on_interrupt=ON_INTERRUPT)


def _entry(name: str, text: str) -> str:
    """Return a recipe's lines in the help."""
    return textwrap.fill(
        " ".join(text.split()),
        _COLUMNS,
        initial_indent=f"  {name:29} ",
        subsequent_indent=" " * 32,
    )


def _train(options: argparse.Namespace, words: list[str]) -> None:
    # threads that spin on a busy machine slow each other down
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from training.fit.distributed import barrier, is_main_process, process_group  # noqa: PLC0415
    from training.fit.run_dir import load_run  # noqa: PLC0415 - torch comes with these
    from training.fit.start_or_resume import open_run  # noqa: PLC0415
    from training.fit.train import train  # noqa: PLC0415

    weights = [f"init_weights={options.weights}"] if options.weights else []
    recipe = override(recipe_named(options.recipe), [*options.set, *weights])
    with process_group():
        if is_main_process():
            run = open_run(
                recipe,
                [folder.path for folder in options.data],
                options.out,
                command_text(words),
                groups=options.groups,
                measure_on=options.measure_on,
                weights=[folder.weight for folder in options.data],
            )
            _print_data(run)
        barrier()
        train(load_run(options.out))
        if is_main_process():
            print(
                f"finished: {options.out}; next: python -m training export {options.out} --store "
                f"model_store --model NAME --version N"
            )


def _print_data(run: "Run") -> None:
    """Print what the data folders hold, and how well the folds are balanced."""
    import numpy as np  # noqa: PLC0415

    from training.data.fold_balance import balance_lines  # noqa: PLC0415

    data = run.facts["data"]
    print(
        f"{data['images']:,} images, {data['positives']:,} positive, {data['person_groups']:,} "
        f"person groups ({data['name']})"
    )
    for image in run.facts["unreadable"]:
        print(f"takes no part: {image['image_id']}: {image['reason']}")
    if run.facts["missing"]:
        print(f"listed without a file: {len(run.facts['missing'])} images, see run.json")
    measured = np.flatnonzero(run.measured_N)
    lines = balance_lines(run.index.subset(measured), run.fold_N[measured])
    print("\n".join(lines), flush=True)
