"""Measure an exported bundle on a folder of labelled images, by the code that serves.

Each file goes bytes -> `cxr.decode_and_preprocess` -> the bundle's graph in ONNX Runtime ->
`cxr.interpret`, once.  No torch is needed, and none is imported.  Images that the shipped model
learned from are found by their hash in the bundle's splits.csv, and are never counted as unseen.

Shape suffixes: h and w map rows and columns, P positive images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr.bundle import Bundle, read_bundle
from cxr.decode import quiet_libraries
from cxr.evaluation_schema import EvaluationMetrics, UnansweredFile
from cxr.graph import Graph, Runtime, open_graph
from cxr.metrics_schema import Localisation, NoveltyGate
from training.data import DataError, DataIndex, load_index
from training.data.masks import read_masks
from training.evaluation.answer_images import ImageAnswer, answers
from training.evaluation.console import summary_lines
from training.evaluation.evaluation_metrics import Evaluated, summarise
from training.evaluation.gallery import Gallery
from training.evaluation.labelled_images import held_out_novelty, read_images, roles
from training.evaluation.ood import Radiographs, measure_novelty
from training.evaluation.page import report
from training.evaluation.prediction import LabelledPrediction, write_predictions
from training.hardware import available_cores
from training.progress import progress_bar
from training.stats.localisation import measure_localisation


@dataclass(frozen=True, slots=True)
class _Collected:
    """What one pass over the images leaves: all predictions, and of few images more than that.

    Maps, pictures and novelty are of unseen images, if the data have any.
    """

    gallery: Gallery
    radiographs: Radiographs
    has_unseen: bool
    predictions: list[LabelledPrediction] = field(default_factory=list)
    unreadable: list[UnansweredFile] = field(default_factory=list)
    cam_hw_of_image: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """Maps of the plain view of positive images, by image id."""

    def add(self, answer: ImageAnswer, *, keep_map: bool) -> None:
        prediction = answer.prediction
        self.predictions.append(prediction)
        if self.has_unseen and not prediction.is_unseen:
            return
        self.gallery.add(answer)
        self.radiographs.add(answer.image.image_HW, float(answer.outputs.novelty_N[0]))
        if keep_map and prediction.label == 1:
            self.cam_hw_of_image[prediction.image_id] = answer.outputs.cam_Nhw[0]


def evaluate(  # noqa: PLR0913 - the command's own options
    bundle_dir: Path,
    data_dir: Path,
    out_dir: Path,
    *,
    tta: bool = False,
    foreign: Sequence[Path] | None = None,
    groups: Path | None = None,
) -> EvaluationMetrics:
    """Measure a bundle on labelled images. Write metrics.json, predictions.csv, gallery/ and
    report.html to `out_dir`.

    Top-level figures are over every readable image. If the model learned from some of them,
    `unseen` has the figures of the others. If `foreign` is given, `novelty_gate` has the detection
    of OOD images: synthetic ones, turned radiographs, and the images of these folders. `groups` is
    a table of persons.

    Returns:
        The content of metrics.json.

    Raises:
        BundleError: the bundle can't be served.
        DataError: the folder has no known layout, is labelled for another finding, or nothing in it
            can be read; or a folder of `foreign` does not exist.
    """
    quiet_libraries()
    bundle = read_bundle(bundle_dir)
    graph = open_graph(bundle, Runtime(threads=available_cores()))
    index = load_index(data_dir, purpose="test", groups=groups, finding=bundle.manifest.finding)
    refuse_other_labels(bundle, index, data_dir)
    if nowhere := [folder for folder in foreign or () if not folder.is_dir()]:
        raise DataError(f"{nowhere[0]} is no folder")
    collected = _answer_all(bundle, graph, index, data_dir, tta=tta)
    out_dir.mkdir(parents=True, exist_ok=True)
    metrics = summarise(
        Evaluated(bundle, index, data_dir, tta=tta),
        collected.predictions,
        collected.unreadable,
        collected.gallery.write(out_dir, data_dir, bundle.manifest.preprocess),
    )
    if localisation := _localise(bundle, data_dir, collected):
        metrics = metrics.changed(localisation=localisation)
    if foreign is not None:
        metrics = metrics.changed(novelty_gate=_measure_gate(bundle, graph, collected, foreign))
    write_predictions(out_dir / "predictions.csv", collected.predictions)
    (out_dir / "metrics.json").write_text(metrics.text(), encoding="utf-8")
    print("\n".join((*summary_lines(metrics), f"report: {report(out_dir)}")))
    return metrics


def refuse_other_labels(bundle: Bundle, index: DataIndex, data_dir: Path) -> None:
    """Raise `DataError` if the folder's layout is not that of the training data: labels of another
    layout mean another finding.

    The layouts `labels` and `nih` name their findings, so they fit every bundle.
    """
    layouts = str(bundle.manifest.recipe.get("data_layout", "any")).split("+")
    if "any" not in layouts and index.name not in (*layouts, "labels", "nih"):
        manifest = bundle.manifest
        raise DataError(
            f"{manifest.model} answers {manifest.finding} and learned from {'+'.join(layouts)}, "
            f"and {data_dir} holds {index.name}: its labels mean something else"
        )


def _answer_all(
    bundle: Bundle, graph: Graph, index: DataIndex, data_dir: Path, *, tta: bool
) -> _Collected:
    manifest = bundle.manifest
    threshold = manifest.profile(tta=tta).thresholds[manifest.default_operating_point]
    role_of = roles(bundle)
    unseen = sum(role_of.get(row.sha256) != "fitted" for row in index.rows)
    collected = _Collected(Gallery(threshold), Radiographs(unseen or len(index)), unseen > 0)
    has_masks = read_masks([], data_dir, manifest.input_size) is not None
    rows = progress_bar(iterable=index.rows, total=len(index), unit="image")
    images = read_images(rows, data_dir, manifest.preprocess, collected.unreadable)
    for answer in answers(bundle, graph, images, tta=tta):
        collected.add(answer, keep_map=has_masks)
    if not collected.predictions:
        first = collected.unreadable[0]
        raise DataError(
            f"{data_dir}: no image can be read; the first one: {first.code}: {first.detail}"
        )
    return collected


def _localise(bundle: Bundle, data_dir: Path, collected: _Collected) -> Localisation | None:
    """Measure the maps of positive images against segmentation masks; None without masks."""
    cams = collected.cam_hw_of_image
    masks = read_masks(list(cams), data_dir, bundle.manifest.input_size)
    if masks is None or not cams:
        return None
    cam_Phw = np.stack(list(cams.values()))
    figures = measure_localisation(cam_Phw, np.stack(list(masks)), bundle.manifest.cam.pool)
    return figures.changed(
        basis="images that the model had not learned from"
        if collected.has_unseen
        else "images that the model LEARNED FROM"
    )


def _measure_gate(
    bundle: Bundle, graph: Graph, collected: _Collected, foreign: Sequence[Path]
) -> NoveltyGate:
    """Measure the novelty gate on the images that the model did not learn from.

    If there are none, use the distances that export wrote: each is of a network that did not learn
    from the image.
    """
    radiographs = collected.radiographs
    if collected.has_unseen:
        basis = "radiographs that the model had not learned from"
        return measure_novelty(bundle, graph, radiographs, foreign, basis)
    known = held_out_novelty(bundle)
    if all(prediction.sha256 in known for prediction in collected.predictions):
        radiographs.novelty[:] = [known[each.sha256] for each in collected.predictions]
        basis = (
            "radiographs that the model learned from, each at the distance that the network of "
            "its fold gave it, which had not; foreign images at the model's own"
        )
    else:
        basis = (
            "radiographs that the model LEARNED FROM, which flatters the AUROC and the share of "
            "false flags"
        )
    return measure_novelty(bundle, graph, radiographs, foreign, basis)
