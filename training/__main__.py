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
Explore data, train a recipe, export a bundle, evaluate it. In this order, for SIIM-ACR as Kaggle
gives it (DIR holds train-rle.csv and the folder of .dcm files):

  python -m training explore --data DIR --out out/data                     # read its remarks
  python -m training train pneumothorax-masks --data DIR --out runs/mine   # COMMAND --help: recipes
  python -m training export runs/mine --store model_store --model mine --version 1
  python -m training evaluate model_store/mine/1 --data OTHER --out out/mine --tta

and for the chest radiographs of children (chest_xray, with train/NORMAL, train/PNEUMONIA, test/):

  python -m training train pneumonia-efficientnet-b0 --data chest_xray --out runs/pneumonia
  python -m training export runs/pneumonia --store model_store --model children --version 1
  python -m training evaluate model_store/children/1 --data chest_xray --out out/children --tta

compare shows which treatment of the imbalance helps, join makes an ensemble. All pages: docs/."""


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
