"""Options of the commands that read data folders."""

import argparse
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - no public name
"""What `add_subparsers` returns."""

ON_INTERRUPT = "; the same command resumes after the last finished epoch"
"""What a command that can resume adds to its message after Ctrl-C."""


@dataclass(frozen=True, slots=True)
class WeightedFolder:
    """A data folder, and the weight of its images in the loss."""

    path: Path
    weight: float = 1.0


def weighted_folder(text: str) -> WeightedFolder:
    """Read `DIR` or `DIR=WEIGHT`; what is no number after the last `=` belongs to the name. Raise
    `ArgumentTypeError` if the weight is not above 0.
    """
    folder, equals, number = text.rpartition("=")
    try:
        weight = float(number)
    except ValueError:
        return WeightedFolder(Path(text))
    if not equals or Path(text).is_dir():
        return WeightedFolder(Path(text))
    if not math.isfinite(weight) or weight <= 0.0:
        raise argparse.ArgumentTypeError(f"the weight in {text} must be above 0")
    return WeightedFolder(Path(folder), weight)


def command_text(words: Sequence[str]) -> str:
    """Return the command line, as run.json states it."""
    return shlex.join(["python", "-m", "training", *words])


def add_groups(command: argparse.ArgumentParser) -> None:
    """Add `--groups`."""
    command.add_argument(
        "--groups",
        type=Path,
        metavar="CSV",
        help="table of images that show one person (ImageId,person_group), in addition to what "
        "file names and a groups.csv in DIR state",
    )


def add_training_data(command: argparse.ArgumentParser) -> None:
    """Add `--data`, which may be repeated, `--measure-on` and `--groups`."""
    command.add_argument(
        "--data",
        type=weighted_folder,
        required=True,
        action="append",
        metavar="DIR[=WEIGHT]",
        help="folder with the images; may be repeated, several folders train together. WEIGHT "
        "multiplies the loss of the folder's images (default: 1)",
    )
    command.add_argument(
        "--measure-on",
        action="append",
        default=[],
        metavar="SOURCE",
        help="count only images of this source for folds, calibration, thresholds and figures; "
        "may be repeated (a source is a layout's name, or what labels.csv says)",
    )
    add_groups(command)


def add_settings(command: argparse.ArgumentParser) -> None:
    """Add `--set`, which may be repeated."""
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="key=value",
        help="change one field of the recipe",
    )
