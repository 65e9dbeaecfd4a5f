"""`python -m training export`, `evaluate`, `recalibrate` and `report`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from training.data.arguments import Commands, add_groups, command_text
from training.stats.figure_texts import figure_text

if TYPE_CHECKING:
    from cxr.study_schema import Study


def add(commands: Commands) -> None:
    """Add the commands to the parser."""
    _add_evaluate(commands)
    _add_export(commands)
    _add_recalibrate(commands)
    _add_report(commands)


def _add_evaluate(commands: Commands) -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="measure a bundle on a data folder; needs no torch",
        description="Run a bundle's graph over a data folder as serving does, and write "
        "OUT/metrics.json, OUT/predictions.csv and OUT/report.html.",
    )
    evaluate.add_argument(
        "bundle", type=Path, metavar="BUNDLE", help="model_store/<model>/<version>"
    )
    evaluate.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="SIIM tree, class folders, a folder with test/, or one with a labels.csv",
    )
    evaluate.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder to write")
    add_groups(evaluate)
    _add_measurements(evaluate)
    _add_uses(evaluate)
    evaluate.set_defaults(run=_evaluate)


def _add_measurements(evaluate: argparse.ArgumentParser) -> None:
    evaluate.add_argument(
        "--tta",
        action="store_true",
        help="average the views of the bundle's test-time augmentation",
    )
    evaluate.add_argument(
        "--novelty",
        action="store_true",
        help="also measure how well the bundle detects images that are no upright frontal chest",
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
        help="also measure the cost of CXR_PRECISION=fast, on images that the bundle did not "
        "learn from; needs OpenVINO and a processor with bf16",
    )
    evaluate.add_argument(
        "--study",
        action="store_true",
        help="also count who is in which fold, and errors on images that the bundle did not learn "
        "from; DIR is the folder that it was made from",
    )


def _add_uses(evaluate: argparse.ArgumentParser) -> None:
    evaluate.add_argument(
        "--state",
        action="store_true",
        help="write the figures of --novelty (the default), --fast and --study into the bundle's "
        "files; fast is then allowed, or not",
    )
    evaluate.add_argument(
        "--recalibrate",
        action="store_true",
        help="also fit probabilities and thresholds to these images (half of the persons; the "
        "other half measures them), and write the next version of the bundle to OUT/model_store",
    )


def _add_export(commands: Commands) -> None:
    export = commands.add_parser(
        "export",
        help="write a bundle from a finished run directory",
        description="Write STORE/NAME/N from a finished run directory. If a gate fails, print it "
        "and write nothing.",
    )
    export.add_argument("run_dir", type=Path, metavar="RUN", help="folder that train wrote")
    export.add_argument("--store", type=Path, default=Path("model_store"), help="the model store")
    export.add_argument("--model", required=True, metavar="NAME", help="name of the model in it")
    export.add_argument(
        "--version", type=int, required=True, metavar="N", help="a version that is not there yet"
    )
    export.add_argument(
        "--max-megabytes",
        type=int,
        default=30,
        metavar="N",
        help="largest graph that is accepted; default: 30, the limit of shipped models",
    )
    export.add_argument(
        "--precision",
        action="append",
        default=[],
        choices=("fp16", "int8"),
        help="also write model.fp16.onnx or model.int8.onnx, if held-out images allow it; may "
        "be repeated",
    )
    export.add_argument(
        "--study",
        type=Path,
        metavar="FILE",
        help="JSON with what no file tells of your data (keys of cxr.study_schema.DataStatement, "
        "such as reference_standard and eligibility), for the checklist; default: what is "
        "published about the recipe's data",
    )
    export.set_defaults(run=_export)


def _add_recalibrate(commands: Commands) -> None:
    recalibrate = commands.add_parser(
        "recalibrate",
        help="write a new version of a bundle with the same network and new probabilities",
        description="Fit calibration and thresholds anew on the bundle's held-out images and on "
        "corrupted copies of them, take needless work out of the graph, and write STORE/NAME/N.",
    )
    recalibrate.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of a bundle")
    recalibrate.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder that holds the bundle's held-out images",
    )
    recalibrate.add_argument(
        "--store", type=Path, default=Path("model_store"), help="default: model_store"
    )
    recalibrate.add_argument(
        "--version", type=int, required=True, metavar="N", help="a version that is not there yet"
    )
    add_groups(recalibrate)
    recalibrate.set_defaults(run=_recalibrate)


def _add_report(commands: Commands) -> None:
    report = commands.add_parser(
        "report",
        help="write OUT/report.html again",
        description="Write OUT/report.html again from the other files in OUT.",
    )
    report.add_argument("out", type=Path, metavar="OUT", help="folder that evaluate wrote")
    report.set_defaults(run=_report)


def _evaluate(options: argparse.Namespace, _: list[str]) -> None:
    from training.bundle.add_figures import state_fast, state_gate, state_study  # noqa: PLC0415
    from training.bundle.bf16 import require_bf16  # noqa: PLC0415
    from training.bundle.bf16_after_export import judge_bundle  # noqa: PLC0415
    from training.evaluation.evaluate import evaluate  # noqa: PLC0415 - matplotlib comes with it

    if options.fast:
        require_bf16()
    wants_novelty = options.novelty or (options.state and not (options.fast or options.study))
    metrics = evaluate(
        options.bundle,
        options.data,
        options.out,
        tta=options.tta or options.recalibrate,  # its calibration is fitted too
        foreign=options.foreign or ([] if wants_novelty else None),
        groups=options.groups,
    )
    judged = None
    if options.fast:
        judged = judge_bundle(options.bundle, options.data, groups=options.groups)
    if options.recalibrate:
        _recalibrate_for_site(options)
    study = _measure_study(options) if options.study else None
    # all measurements are done by now: the bundle gets all of them, or none after an error
    if options.state and metrics.novelty_gate is not None:
        state_gate(options.bundle, metrics.novelty_gate)
    if options.state and study is not None:
        state_study(options.bundle, study)
    if judged:
        decision, fast = judged
        print(f"bf16: {decision.figures().as_json()}")
        if options.state:
            state_fast(options.bundle, decision.figures(), fast)


def _measure_study(options: argparse.Namespace) -> "Study":
    from cxr.bundle import read_bundle  # noqa: PLC0415
    from training.bundle.card_study import study_section  # noqa: PLC0415
    from training.bundle.study_after_export import measure_study  # noqa: PLC0415 - torch
    from training.evaluation.prediction import read_predictions  # noqa: PLC0415

    predictions = read_predictions(options.out / "predictions.csv")
    bundle = read_bundle(options.bundle)
    study = measure_study(bundle, options.data, predictions, groups=options.groups)
    print("\n".join(study_section(bundle.manifest.model_copy(update={"study": study}))))
    return study


def _recalibrate_for_site(options: argparse.Namespace) -> None:
    from cxr.bundle import read_bundle  # noqa: PLC0415
    from training.bundle.site_recalibration import recalibrate_for_site  # noqa: PLC0415 - torch
    from training.evaluation.prediction import read_predictions  # noqa: PLC0415

    predictions = read_predictions(options.out / "predictions.csv")
    site = options.data.resolve().name
    path = recalibrate_for_site(options.bundle, predictions, site, options.out / "model_store")
    found = read_bundle(path).manifest.metrics.recalibration
    if found is not None:
        print(
            f"recalibrated on {found.n_fitted:,} images; on the other persons' ECE "
            f"{figure_text(found.ece)} (before {figure_text(found.ece_before)}), Brier score "
            f"{figure_text(found.brier)} (before {figure_text(found.brier_before)}): {path}"
        )


def _export(options: argparse.Namespace, _: list[str]) -> None:
    from training.bundle.data_statements import read_statement  # noqa: PLC0415
    from training.bundle.export import export  # noqa: PLC0415 - torch comes with it

    path = export(
        options.run_dir,
        options.store,
        options.model,
        options.version,
        max_bytes=options.max_megabytes * 1_000_000,
        precisions=tuple(dict.fromkeys(options.precision)),
        statement=None if options.study is None else read_statement(options.study),
    )
    print(path)


def _recalibrate(options: argparse.Namespace, words: list[str]) -> None:
    from training.bundle.recalibrate import recalibrate  # noqa: PLC0415 - torch comes with it

    path = recalibrate(
        options.bundle,
        options.data,
        options.store,
        options.version,
        command_text(words),
        groups=options.groups,
    )
    print(path)


def _report(options: argparse.Namespace, _: list[str]) -> None:
    from training.evaluation.page import report  # noqa: PLC0415 - matplotlib comes with it

    print(report(options.out))
