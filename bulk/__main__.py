"""`python -m bulk SOURCE --model NAME --out DIR`: score an archive into Parquet."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bulk.errors import BulkError
from bulk.run import Cluster, estimate, run
from bulk.scoring_job import Job, Options, choose_bundle, make_job
from bulk.sources import FolderSource, open_source

INCOMPLETE = 3
"""Exit code of a run that did everything but what it could not read."""

_HELP = """\
Score an archive of radiographs into Parquet: one row for each file, also if it can't be scored.

  python -m bulk /archive --model pneumothorax --out scores --estimate
  python -m bulk /archive --model pneumothorax --out scores
  python -m bulk s3://bucket/2026 --model pneumothorax --out /shared/scores --ray auto
  python -m bulk https://pacs.example.org/dicom-web --model pneumothorax --out scores

The same command goes on after an interruption, and scores what is new or has changed.
SOURCE is a folder, a .txt file that lists a path or URL a line, any address that fsspec opens
(s3:// needs s3fs, gs:// gcsfs), or http(s):// for a DICOMweb server.
With --ray, SOURCE, --store and --out must mean the same on every node."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0; 1 after a message; 3 if something could not be read; or 130 after Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    try:
        job = _job(options)
        cluster = Cluster(options.ray, options.workers, options.price)
        if options.estimate:
            print(estimate(job, cluster).describe(options.price))
        else:
            outcome = run(job, cluster)
            print(outcome.summary)
            return 0 if outcome.is_complete else INCOMPLETE
    except BulkError as exc:
        print(f"bulk: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nbulk: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _job(options: argparse.Namespace) -> Job:
    source = open_source(options.source)
    if isinstance(source, FolderSource) and source.holds(options.out):
        raise BulkError("--out lies in the source; choose a folder outside")
    bundle = choose_bundle(options.store, options.model, options.version)
    chosen = Options(
        tta=options.tta,
        operating_point=options.operating_point,
        scope=options.scope,
        engine=options.engine,
    )
    return make_job(source, bundle, options.out, chosen)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bulk",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("source", metavar="SOURCE")
    add("--model", required=True, metavar="NAME", help="a model of the store")
    add("--version", type=int, metavar="N", help="its version; the highest if left out")
    add(
        "--store",
        type=Path,
        default=Path("model_store"),
        metavar="DIR",
        help="default: model_store",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the answers")
    add("--estimate", action="store_true", help="score 200 files and predict what all will take")
    add("--ray", metavar="ADDRESS", help="a Ray cluster (auto, HOST:PORT); else this machine")
    add("--workers", type=_positive, metavar="N", help="cores to use; all if left out")
    add("--price", type=float, metavar="X", help="of a core-hour, to show what the run costs")
    add("--tta", action="store_true", help="average several views of each image")
    add("--operating-point", metavar="NAME", help="the threshold that decides; else the model's")
    add("--scope", choices=("refuse", "warn"), default="refuse", help="as CXR_SCOPE of the service")
    add("--engine", choices=("onnxruntime", "openvino"), default="onnxruntime")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
