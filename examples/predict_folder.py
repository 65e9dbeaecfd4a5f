"""Ask the service about every radiograph of a folder, and list the most suspicious first.

    python examples/predict_folder.py FOLDER --url http://127.0.0.1:8000 --model pneumothorax

The command `cxr-serve predict` does more: it resumes, retries and writes CSV.
"""

import argparse
import sys
from pathlib import Path

from cxr_client import Client, PredictionDict, ServiceProblem, Unreachable

SUFFIXES = {".dcm", ".png", ".jpg", ".jpeg"}


def main() -> int:
    """Print one line for each file; return 1 if a file has no answer."""
    options = _parser().parse_args()
    files = sorted(path for path in options.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    answers: list[tuple[Path, PredictionDict]] = []
    failed = 0
    with Client(options.url) as client:
        for path in files:
            try:
                answers.append((path, client.predict(path, model=options.model)))
            except ServiceProblem as problem:  # this file has a problem, the next one may have none
                print(f"{path.name}: {problem.code}: {problem.detail}", file=sys.stderr)
                failed += 1
            except Unreachable as error:  # no file will get an answer
                print(error, file=sys.stderr)
                return 1
    for path, answer in sorted(answers, key=lambda pair: -pair[1]["probability"]):
        print(_line(path, answer))
    return 1 if failed else 0


def _line(path: Path, answer: PredictionDict) -> str:
    warnings = " ".join(warning["code"] for warning in answer["warnings"])
    return f"{answer['probability']:.3f}  {answer['label']:15}  {path.name}  {warnings}".rstrip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", default=None, help="the service's default model if not given")
    return parser


if __name__ == "__main__":
    sys.exit(main())
