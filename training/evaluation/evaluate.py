"""Measure an exported bundle on a folder of labelled images, by the very path that serves.

Each file goes bytes -> `cxr.decode` -> `cxr.preprocess` -> the bundle's graph in
ONNX Runtime -> `cxr.interpret`.  No torch is needed, and none is imported.
Images that the shipped model learned from are found by their hash in the
bundle's splits.csv, and are never counted as unseen.

Shape suffixes: N images, H and W input rows and columns.
"""

import csv
import json
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr.bundle import Bundle, read_bundle
from cxr.decode import DecodeLimits, decode, quiet_libraries
from cxr.errors import ImageError
from cxr.graph import Graph, Runtime, open_graph
from cxr.interpret import PLAIN_PROFILE, Finding, Outputs, interpret, scope_warnings
from cxr.metadata_features import encode_metadata_features
from cxr.preprocess import PreprocessSpec, preprocess
from cxr.radiograph import Radiograph
from cxr.tta import PLAIN, POLICIES
from training.data import DataError, DataIndex, IndexRow, load_index
from training.data.index import read_table
from training.data.masks import read_masks
from training.evaluation.breakdown import look_closer
from training.evaluation.console import summary_lines
from training.evaluation.ood import Radiographs, measure_novelty
from training.evaluation.page import report
from training.evaluation.predict import predict
from training.evaluation.prediction import LabelledPrediction, Role
from training.progress import progress_bar
from training.stats.localisation import measure_localisation
from training.stats.metrics import measure

_DECODED_AHEAD = 32
"""Files that may be decoding or waiting while the graph runs."""


@dataclass(frozen=True, slots=True)
class UnansweredFile:
    """A file that could not be answered: the public code of its error, and the message to the
    sender.
    """

    image_id: str
    path: str
    label: int
    code: str
    detail: str


Read = tuple[IndexRow, Radiograph]
Image = tuple[Radiograph, NDArray[np.uint8]]
Decoded = tuple[IndexRow, Image | ImageError]


def evaluate(  # noqa: PLR0913 - the command's own options
    bundle_dir: Path,
    data_dir: Path,
    out_dir: Path,
    *,
    tta: bool = False,
    foreign: Sequence[Path] | None = None,
    groups: Path | None = None,
) -> dict[str, Any]:
    """Measure a bundle on labelled images. Write metrics.json, predictions.csv, gallery/ and
    report.html to `out_dir`.

    Top-level figures are over every readable image. If the model learned from some of them,
    `unseen` has the figures of the others. If `foreign` is given, `novelty_gate` has the detection
    of OOD images: synthetic ones, turned radiographs, and the images of these folders. `groups` is
    a table of persons.

    Returns:
        What metrics.json holds.

    Raises:
        BundleError: the bundle can't be served.
        DataError: the folder has no known layout, is labelled for another finding, or nothing in it
            can be read;
            or one of `foreign` is none.
    """
    quiet_libraries()
    bundle = read_bundle(bundle_dir)
    graph = open_graph(bundle, Runtime(threads=os.cpu_count() or 1))
    index = load_index(data_dir, purpose="test", groups=groups)
    _refuse_other_labels(bundle, index, data_dir)
    if nowhere := [folder for folder in foreign or () if not folder.is_dir()]:
        raise DataError(f"{nowhere[0]} is no folder")
    unreadable: list[UnansweredFile] = []
    decoded = progress_bar(
        iterable=decode_ahead(index.rows, data_dir, bundle.manifest.preprocess),
        total=len(index),
        unit="image",
    )
    predictions = list(_predict_all(bundle, graph, readable(decoded, unreadable), tta=tta))
    if not predictions:
        raise DataError(
            f"{data_dir}: no image can be read; the first one: {unreadable[0].code}: "
            f"{unreadable[0].detail}"
        )
    named = replace(
        index, name=data_dir.resolve().name
    )  # the layout's name would say too little, the whole path too much
    metrics = _summarise(bundle, named, predictions, unreadable, tta=tta)
    if localisation := _localise(bundle, graph, data_dir, predictions):
        metrics["localisation"] = localisation
    if foreign is not None:
        metrics["novelty_gate"] = _measure_gate(bundle, graph, data_dir, predictions, foreign)
    out_dir.mkdir(parents=True, exist_ok=True)
    metrics |= look_closer(bundle, graph, data_dir, out_dir, predictions, tta=tta)
    _write_predictions(out_dir / "predictions.csv", predictions)
    (out_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print("\n".join((*summary_lines(metrics), f"report: {report(out_dir)}")))
    return metrics


def _refuse_other_labels(bundle: Bundle, index: DataIndex, data_dir: Path) -> None:
    """Raise `DataError` if the folder's layout is not that of the training data: labels of another
    layout mean another finding.
    """
    layout = bundle.manifest.recipe.get("data_layout", "any")
    if layout not in ("any", index.name):
        answers = (
            f"{bundle.manifest.model} answers {bundle.manifest.finding} and learned from {layout}"
        )
        raise DataError(
            f"{answers}, and {data_dir} holds {index.name}: its labels mean something else"
        )


def _localise(
    bundle: Bundle, graph: Graph, data_dir: Path, predictions: Sequence[LabelledPrediction]
) -> dict[str, Any] | None:
    """Measure the maps of positive images against segmentation masks. Only unseen images count, if
    there are any. Return None without masks.
    """
    positive = [prediction for prediction in predictions if prediction.label == 1]
    unseen = [prediction for prediction in positive if prediction.role != "fitted"]
    spec, chosen = bundle.manifest.preprocess, unseen or positive
    masks = read_masks([prediction.image_id for prediction in chosen], data_dir, spec.size)
    if masks is None or not chosen:
        return None
    decoded = [_decode(data_dir / prediction.path, spec) for prediction in chosen]
    images = enumerate(image[1] for image in decoded if not isinstance(image, ImageError))
    cam_Phw = np.stack([outputs.cam_Nhw[0] for _, outputs in predict(graph, images, (PLAIN,))])
    figures = measure_localisation(cam_Phw, np.stack(list(masks)), bundle.manifest.cam.pool)
    return figures | {
        "basis": "images that the model had not learned from"
        if unseen
        else "images that the model LEARNED FROM"
    }


def _measure_gate(
    bundle: Bundle,
    graph: Graph,
    data_dir: Path,
    predictions: Sequence[LabelledPrediction],
    foreign: Sequence[Path],
) -> dict[str, Any]:
    """Measure the novelty gate on the images that the model did not learn from.

    If there are none, use the distances that export wrote: each is of a network that did not learn
    from the image.
    """
    unseen = [prediction for prediction in predictions if prediction.role != "fitted"]
    decoded = [
        _decode(data_dir / prediction.path, bundle.manifest.preprocess)
        for prediction in unseen or predictions
    ]
    images = [image[1] for image in decoded if not isinstance(image, ImageError)]
    noted = {line["sha256"]: line.get("novelty") for line in _splits(bundle)}
    if unseen:
        radiographs = Radiographs(images, "radiographs that the model had not learned from")
    elif all(noted[prediction.sha256] for prediction in predictions):
        radiographs = Radiographs(
            images,
            "radiographs that the model learned from, each at the distance that the network of "
            "its fold gave it, "
            "which had not; foreign images at the model's own",
            np.array([float(noted[prediction.sha256] or "nan") for prediction in predictions]),
        )
    else:
        radiographs = Radiographs(
            images,
            "radiographs that the model LEARNED FROM, which flatters the AUROC and the share of "
            "false flags",
        )
    return measure_novelty(bundle, graph, radiographs, foreign)


def _predict_all(
    bundle: Bundle, graph: Graph, images: Iterable[tuple[Read, NDArray[np.uint8]]], *, tta: bool
) -> Iterator[LabelledPrediction]:
    policy, role_of = POLICIES[bundle.manifest.tta_policy], roles(bundle)
    for (row, radiograph), outputs in predict(graph, images, policy if tta else policy[:1], facts):
        yield _prediction(row, radiograph, outputs, bundle, role_of.get(row.sha256, ""))


def facts(read: Read) -> NDArray[np.float32]:
    """Return a file's metadata features, for graphs that read them."""
    (metadata_M,) = encode_metadata_features([read[1].metadata])
    return np.asarray(metadata_M)


def readable(
    decoded: Iterable[Decoded], unreadable: list[UnansweredFile]
) -> Iterator[tuple[Read, NDArray[np.uint8]]]:
    """Pass on what could be read, and add what could not to `unreadable`."""
    for row, read in decoded:
        if isinstance(read, ImageError):
            unreadable.append(
                UnansweredFile(row.image_id, row.path, row.label, read.code, str(read))
            )
        else:
            radiograph, image_HW = read
            yield (row, radiograph), image_HW


def decode_ahead(
    rows: Iterable[IndexRow], data_dir: Path, spec: PreprocessSpec
) -> Iterator[Decoded]:
    """Decode in threads, a bounded number of files ahead. Yield the results in order."""
    waiting: deque[tuple[IndexRow, Future[Image | ImageError]]] = deque()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for row in rows:
            waiting.append((row, pool.submit(_decode, data_dir / row.path, spec)))
            if len(waiting) > _DECODED_AHEAD:
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()


def _decode(path: Path, spec: PreprocessSpec) -> Image | ImageError:
    try:
        radiograph = decode(path.read_bytes(), limits=DecodeLimits(), size=spec.size)
    except ImageError as exc:
        return exc
    return radiograph, preprocess(radiograph, spec)


def _prediction(
    row: IndexRow, radiograph: Radiograph, outputs: Outputs, bundle: Bundle, role: Role
) -> LabelledPrediction:
    finding = interpret(outputs, bundle.manifest)
    metadata = radiograph.metadata
    return LabelledPrediction(
        image_id=row.image_id,
        path=row.path,
        sha256=row.sha256,
        person_group=row.person_group,
        label=row.label,
        role=role,
        logit=float(outputs.logit_N.mean(dtype=np.float64)),
        plain_logit=float(outputs.logit_N[0]),
        probability=finding.probability,
        spread=finding.tta.spread if finding.tta else None,
        novelty=finding.novelty.score,
        is_novel=finding.novelty.is_novel,
        age_years=metadata.age_years,
        sex=metadata.sex,
        view_position=metadata.view_position,
        warnings=" ".join(_warning_codes(radiograph, finding, bundle)),
    )


def _warning_codes(radiograph: Radiograph, finding: Finding, bundle: Bundle) -> list[str]:
    scope = scope_warnings(radiograph.metadata, bundle.manifest.scope)
    return [warning.code.value for warning in (*radiograph.warnings, *scope, *finding.warnings)]


def _summarise(
    bundle: Bundle,
    index: DataIndex,
    predictions: Sequence[LabelledPrediction],
    unreadable: Sequence[UnansweredFile],
    *,
    tta: bool,
) -> dict[str, Any]:
    """Return metrics.json: figures over all images and, if some were learned from, over the unseen
    ones.
    """
    roles = Counter(prediction.role for prediction in predictions)
    unseen = [prediction for prediction in predictions if prediction.role != "fitted"]
    facts = {
        "basis": _basis(len(predictions), roles["fitted"], roles["calibrated"]),
        "reading": bundle.manifest.tta_policy if tta else PLAIN_PROFILE,
        "bundle": {
            "model": bundle.manifest.model,
            "version": bundle.manifest.version,
            "sha256": bundle.sha256,
        },
        "finding": bundle.manifest.finding,
        "data": {"name": index.name, "images": len(index), "sha256": index.fingerprint},
        "n_seen": roles["fitted"],
        "n_calibrated": roles["calibrated"],
        "n_novel": sum(prediction.is_novel for prediction in predictions),
        "n_missing": len(index.missing),
        "unreadable": [asdict(item) for item in unreadable],
    }
    figures = _measure(bundle, predictions, tta=tta)
    return (
        figures | facts | ({"unseen": _measure(bundle, unseen, tta=tta)} if roles["fitted"] else {})
    )


def _basis(images: int, seen: int, calibrated: int) -> str:
    text = f"{images:,} images, {f'{seen:,}' if seen else 'none'} of which the model learned from"
    if seen:
        text += " (the figures named unseen leave them out)"
    if calibrated:
        text += (
            f"; {calibrated:,} others are those that its calibration and thresholds were fitted on"
        )
    return text


def _measure(
    bundle: Bundle, predictions: Sequence[LabelledPrediction], *, tta: bool
) -> dict[str, Any]:
    manifest = bundle.manifest
    profile = manifest.readings[manifest.tta_policy if tta else PLAIN_PROFILE]
    return measure(
        np.array([prediction.label for prediction in predictions], dtype=np.int_),
        np.array([prediction.probability for prediction in predictions], dtype=np.float64),
        profile.thresholds,
        manifest.default_operating_point,
        groups_N=[prediction.person_group for prediction in predictions],
    )


def roles(bundle: Bundle) -> dict[str, Role]:
    """Return each file's role in making the bundle, by its hash, from splits.csv."""
    return {
        line["sha256"]: "fitted" if line["fitted"] == "yes" else "calibrated"
        for line in _splits(bundle)
    }


def _splits(bundle: Bundle) -> list[dict[str, str]]:
    path = bundle.path / "splits.csv"
    return read_table(path) if path.is_file() else []


def _write_predictions(path: Path, predictions: Sequence[LabelledPrediction]) -> None:
    names = [item.name for item in fields(LabelledPrediction)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {key: "" if value is None else value for key, value in asdict(item).items()}
            for item in predictions
        )
