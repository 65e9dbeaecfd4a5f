"""Options of the commands that read data folders."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - no public name
"""What `add_subparsers` returns."""

ON_INTERRUPT = "; the same command resumes after the last finished epoch"
"""What a command that can resume adds to its message after Ctrl-C."""


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
        type=Path,
        required=True,
        action="append",
        metavar="DIR",
        help="folder with the images; several folders train together",
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
