"""`python -m training`: explore data, train a recipe, export a bundle, evaluate it."""

import argparse
import sys
from collections.abc import Sequence

from cxr.errors import CxrError
from training.bundle import commands as bundle_commands
from training.errors import TrainingError
from training.experiments import commands as experiment_commands
from training.explore import command as explore_command
from training.fit import command as train_command

_HELP = """\
Explore data, train a recipe, export a bundle, evaluate it.

  python -m training explore --data DIR --out out/data
  python -m training train pneumonia-efficientnet-b0 --data DIR --out runs/pneumonia
  python -m training join runs/one runs/other --out runs/both
  python -m training export runs/pneumonia --store model_store --model pneumonia --version 1
  python -m training evaluate model_store/pneumonia/1 --data DIR --out out/pneumonia --tta
  python -m training report out/pneumonia"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Return the exit status: 0, 1 after an error message, or 130 after Ctrl-C."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(words)
    try:
        options.run(options, words)
    except (CxrError, TrainingError, OSError) as exc:
        # OSError too: a full disk or a missing permission is not a defect of the program
        print(f"training: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\ntraining: interrupted{options.on_interrupt}", file=sys.stderr)
        return 130  # the status that a shell reports after SIGINT
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(on_interrupt="")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    explore_command.add(commands)
    train_command.add(commands)
    experiment_commands.add(commands)
    bundle_commands.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
