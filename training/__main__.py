"""`python -m training`: explore data, train a recipe, export a bundle, evaluate it."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cxr.errors import CxrError
from training.errors import TrainingError
from training.recipe.catalogue import RECIPES, recipe_named
from training.recipe.schema import known_keys, override

_HELP = """\
Explore data, train a recipe, export a bundle, evaluate it.

  python -m training explore --data DIR --out out/data
  python -m training train pneumonia-efficientnet-b0 --data DIR --out runs/pneumonia
  python -m training join runs/one runs/other --out runs/both
  python -m training export runs/pneumonia --store model_store --model pneumonia --version 1
  python -m training evaluate model_store/pneumonia/1 --data DIR --out out/pneumonia --tta
  python -m training report out/pneumonia"""

_TRAIN_HELP = """\
Train a recipe on a data folder and keep everything in a run directory (RUN).

  python -m training train pneumonia-efficientnet-b0 --data DIR --out runs/pneumonia
  python -m training train pneumothorax-efficientnet-b0 --data DIR --out runs/pneumothorax \\
      --weights runs/pneumonia/final/model.safetensors

The same command resumes an interrupted run after its last finished epoch.
Several GPUs share a training under
`torchrun --standalone --nproc-per-node 4 -m training train ...`.
DIR is a SIIM tree (.dcm files at any depth, a csv with ImageId and EncodedPixels, and
beside it groups.csv where persons recur), or a folder with NORMAL/ and PNEUMONIA/, or
one that holds such a train/."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Return the exit status: 0, 1 after an error message, or 130 after Ctrl-C."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(words)
    try:
        return int(options.run(options, words) or 0)
    except (
        CxrError,
        TrainingError,
        OSError,
    ) as exc:  # a full disk or a missing permission is not a defect of the program
        print(f"training: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        goes_on = (
            "; the same command goes on after the last finished epoch"
            if options.run in (_train, _compare)
            else ""
        )
        print(f"\ntraining: interrupted{goes_on}", file=sys.stderr)
        return 130  # the status that a shell reports after SIGINT


def _explore(options: argparse.Namespace, _: list[str]) -> None:
    from training.explore.survey import explore  # noqa: PLC0415 - matplotlib comes with it

    explore(options.data, options.out, groups=options.groups)


def _train(options: argparse.Namespace, words: list[str]) -> None:
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "PASSIVE"
    )  # threads that spin on a busy machine slow each other down
    import numpy as np  # noqa: PLC0415

    from training.data.fold_balance import balance_lines  # noqa: PLC0415
    from training.fit.distributed import barrier, is_main_process, process_group  # noqa: PLC0415
    from training.fit.open_run import open_run  # noqa: PLC0415
    from training.fit.run_dir import load_run  # noqa: PLC0415 - torch comes with these, and evaluate needs none
    from training.fit.train import train  # noqa: PLC0415

    settings = [*options.set, *([f"init_weights={options.weights}"] if options.weights else [])]
    recipe = override(recipe_named(options.recipe), settings)
    command = shlex.join(["python", "-m", "training", *words])
    with process_group():
        if is_main_process():
            run = open_run(
                recipe,
                options.data,
                options.out,
                command,
                groups=options.groups,
                measure_on=options.measure_on,
            )
            _say_what_was_found(run.facts)
            measured = np.flatnonzero(run.measured_N)
            lines = balance_lines(run.index.subset(measured), run.fold_N[measured])
            print("\n".join(lines), flush=True)
        barrier()
        train(load_run(options.out))
        if is_main_process():
            out = options.out
            print(
                f"finished: {out}; next: python -m training export {out} --store model_store "
                f"--model NAME --version N"
            )


def _compare(options: argparse.Namespace, words: list[str]) -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in `_train`
    from training.experiments.compare import compare, split_variants  # noqa: PLC0415 - torch comes with it

    recipe = override(recipe_named(options.recipe), options.set)
    command = shlex.join(["python", "-m", "training", *words])
    variants = split_variants(options.variants)
    compare(
        recipe,
        options.data,
        options.out,
        variants=variants,
        seeds=options.seeds,
        command=command,
        groups=options.groups,
    )


def _join(options: argparse.Namespace, words: list[str]) -> None:
    from training.experiments.ensemble import join  # noqa: PLC0415 - torch comes with it

    run = join(
        options.runs, options.out, options.name, shlex.join(["python", "-m", "training", *words])
    )
    print(
        f"joined: {run.path}; next: python -m training export {run.path} --store model_store "
        f"--model NAME --version N"
    )


def _say_what_was_found(facts: dict[str, Any]) -> None:
    data = facts["data"]
    print(
        f"{data['images']:,} images, {data['positives']:,} positive, {data['person_groups']:,} "
        f"person groups ({data['name']})"
    )
    for image in facts["unreadable"]:
        print(f"takes no part: {image['image_id']}: {image['reason']}")
    if facts["missing"]:
        print(f"listed without a file: {len(facts['missing'])} images, see run.json")


def _evaluate(options: argparse.Namespace, _: list[str]) -> None:
    from training.bundle.amend import state_fast, state_gate  # noqa: PLC0415
    from training.bundle.bf16 import require_bf16  # noqa: PLC0415
    from training.bundle.bf16_later import judge_bundle  # noqa: PLC0415
    from training.evaluation.evaluate import evaluate  # noqa: PLC0415 - matplotlib comes with it

    if options.fast:
        require_bf16()
    wants_novelty = options.novelty or (options.state and not options.fast)
    foreign = options.foreign or ([] if wants_novelty else None)
    metrics = evaluate(
        options.bundle,
        options.data,
        options.out,
        tta=options.tta,
        foreign=foreign,
        groups=options.groups,
    )
    judged = (
        judge_bundle(options.bundle, options.data, groups=options.groups) if options.fast else None
    )
    if (
        options.state and "novelty_gate" in metrics
    ):  # what can't be measured has said so by now: all is stated, or nothing
        state_gate(options.bundle, metrics["novelty_gate"])
    if judged:
        verdict, fast = judged
        print(f"bf16: {verdict.as_dict()}")
        if options.state:
            state_fast(options.bundle, verdict.as_dict(), fast)


def _export(options: argparse.Namespace, _: list[str]) -> None:
    from training.bundle.export import export  # noqa: PLC0415 - torch comes with it

    max_bytes = options.max_megabytes * 1_000_000
    precisions = tuple(dict.fromkeys(options.precision))
    run_dir, store, model = options.run_dir, options.store, options.model
    print(
        export(run_dir, store, model, options.version, max_bytes=max_bytes, precisions=precisions)
    )


def _report(options: argparse.Namespace, _: list[str]) -> None:
    from training.evaluation.page import report  # noqa: PLC0415 - matplotlib comes with it

    print(report(options.out))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_explore(commands)
    _add_train(commands)
    _add_compare(commands)
    _add_join(commands)
    _add_evaluate(commands)
    _add_export(commands)
    _add_report(commands)
    return parser


def _add_explore(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    explore = commands.add_parser(
        "explore",
        help="report on a data folder before training on it",
        description=(
            "Read every file of a SIIM tree or of class folders; write report.html, explore.json "
            "and, where pictures are "
            "nearly the same, near_duplicates.csv (a table for --groups) to OUT."
        ),
    )
    explore.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="SIIM tree, class folders, or both parts of them",
    )
    explore.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder to write")
    _add_groups(explore)
    explore.set_defaults(run=_explore)


def _add_train(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    recipes = "\n".join(f"  {name:30} {make.__doc__}" for name, make in RECIPES.items())
    keys = "keys that --set knows (tuples with commas, none for nothing):\n  " + ", ".join(
        known_keys()
    )
    train = commands.add_parser(
        "train",
        help="train a recipe, or resume a run directory",
        description=_TRAIN_HELP,
        epilog=f"recipes:\n{recipes}\n\n{keys}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument("recipe", metavar="RECIPE", help="name of a recipe, see below")
    train.add_argument(
        "--data",
        type=Path,
        required=True,
        action="append",
        metavar="DIR",
        help="folder with the images; several folders train together",
    )
    train.add_argument(
        "--measure-on",
        action="append",
        default=[],
        metavar="SOURCE",
        help="count only images of this source for folds, calibration, thresholds and figures; "
        "may be repeated (a source is a layout's name, or what labels.csv says)",
    )
    train.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="RUN",
        help="folder to write, or to take up again",
    )
    _add_groups(train)
    train.add_argument(
        "--weights",
        metavar="FILE",
        help="start from a run directory's weights, torchvision's, or `imagenet` "
        "(init_weights=FILE)",
    )
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="key=value",
        help="change one field of the recipe",
    )
    train.set_defaults(run=_train)


def _add_compare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    compare = commands.add_parser(
        "compare",
        help="train a recipe under several treatments of its imbalance, or other changes, and "
        "compare them",
        description=(
            "Train RECIPE once for each variant and seed, on one split; write OUT/comparison.json "
            "and OUT/report.html: the variants' "
            "figures, paired intervals of their differences, confusion matrices. The same command "
            "goes on after a stop."
        ),
    )
    compare.add_argument("recipe", metavar="RECIPE", help="name of a recipe, as train takes it")
    compare.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder with the images"
    )
    compare.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="OUT",
        help="folder to write, or to take up again",
    )
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
    _add_groups(compare)
    compare.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="key=value",
        help="change one field of the recipe",
    )
    compare.set_defaults(run=_compare)


def _add_join(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    join = commands.add_parser(
        "join",
        help="make one run directory of several, whose networks answer with the mean of theirs",
        description=(
            "Put the networks of finished run directories side by side: one task, one split, any "
            "networks and sizes. Each RUN counts as "
            "one. What comes of it is exported and evaluated as any RUN; give the run directories "
            "the same split_seed."
        ),
    )
    join.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="two folders or more that train wrote"
    )
    join.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder to write")
    join.add_argument(
        "--name",
        default="joined",
        metavar="NAME",
        help="what its recipe is called; default: %(default)s",
    )
    join.set_defaults(run=_join)


def _add_evaluate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="measure a bundle on a data folder; needs no torch",
        description="Run a bundle's graph over a data folder as serving does, and write "
        "OUT/metrics.json and OUT/report.html.",
    )
    evaluate.add_argument(
        "bundle", type=Path, metavar="BUNDLE", help="model_store/<model>/<version>"
    )
    evaluate.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="SIIM tree, class folders, or a folder with test/",
    )
    evaluate.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder to write")
    _add_groups(evaluate)
    evaluate.add_argument(
        "--tta",
        action="store_true",
        help="average the views of the bundle's test-time augmentation",
    )
    evaluate.add_argument(
        "--novelty",
        action="store_true",
        help="also measure how well the bundle tells what is no upright frontal chest",
    )
    evaluate.add_argument(
        "--foreign",
        type=Path,
        action="append",
        metavar="DIR",
        help="the same, on this folder's images too; may be repeated",
    )
    evaluate.add_argument(
        "--fast",
        action="store_true",
        help="also measure what CXR_PRECISION=fast would cost, on images that the bundle had not "
        "learned from; "
        "needs OpenVINO and a processor with bf16",
    )
    evaluate.add_argument(
        "--state",
        action="store_true",
        help="state what --novelty (the default) and --fast measured in the bundle's files; fast "
        "is then allowed, or not",
    )
    evaluate.set_defaults(run=_evaluate)


def _add_groups(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--groups",
        type=Path,
        metavar="CSV",
        help="images of one person (ImageId,person_group), beyond what DIR itself tells",
    )


def _add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    export = commands.add_parser(
        "export",
        help="write a bundle from a finished run directory",
        description="Write STORE/NAME/N from a finished run directory, or say which gate failed "
        "and write nothing.",
    )
    export.add_argument("run_dir", type=Path, metavar="RUN", help="folder that train wrote")
    export.add_argument(
        "--store", type=Path, default=Path("model_store"), help="default: model_store"
    )
    export.add_argument(
        "--model", required=True, metavar="NAME", help="name of the model in the store"
    )
    export.add_argument(
        "--version", type=int, required=True, metavar="N", help="a version that is not there yet"
    )
    export.add_argument(
        "--max-megabytes",
        type=int,
        default=30,
        metavar="N",
        help="largest graph that is accepted; default: 30, what we ship",
    )
    export.add_argument(
        "--precision", action="append", default=[], choices=("fp16", "int8"),
        help="also write model.fp16.onnx or model.int8.onnx, where held-out images allow it; may "
             "be repeated",
    )  # fmt: skip
    export.set_defaults(run=_export)


def _add_report(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    report = commands.add_parser(
        "report",
        help="draw OUT/report.html again",
        description="Draw OUT/report.html again from what evaluate wrote to OUT.",
    )
    report.add_argument("out", type=Path, metavar="OUT", help="folder that evaluate wrote")
    report.set_defaults(run=_report)


if __name__ == "__main__":
    sys.exit(main())
