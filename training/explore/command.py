"""`python -m training explore`."""

import argparse
from pathlib import Path

from training.data.arguments import Commands, add_groups


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    explore = commands.add_parser(
        "explore",
        help="report on a data folder before training on it",
        description=(
            "Read every file of a data folder; write report.html, explore.json and, if pictures "
            "are nearly the same, near_duplicates.csv (a table for --groups) to OUT."
        ),
    )
    explore.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="SIIM tree, class folders (both parts of them), or a folder with a labels.csv",
    )
    explore.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder to write")
    explore.add_argument(
        "--finding",
        metavar="COLUMN",
        help="the finding to report on, if a table has several",
    )
    add_groups(explore)
    explore.set_defaults(run=_explore)


def _explore(options: argparse.Namespace, _: list[str]) -> None:
    from training.explore.survey import explore  # noqa: PLC0415 - matplotlib comes with it

    explore(options.data, options.out, groups=options.groups, finding=options.finding)
