"""Held-out predictions: each network of a run directory answers the images that it did not learn
from.

Each fold's network runs as an exported graph, on the same tensors and TTA views as in serving.

Shape suffixes: N held-out images, K views of one image, H and W input rows and columns, h and w map
rows and columns.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cxr.graph import Graph, OnnxGraph, Runtime
from cxr.interpret import PLAIN_PROFILE, Outputs
from cxr.tta import POLICIES, TtaView
from training.bundle.onnx_export import trace
from training.evaluation.corruptions import CORRUPTIONS, Image8, corrupted
from training.evaluation.predict import predict
from training.fit.batches import open_cache
from training.fit.late_fusion import encode
from training.fit.run_dir import Run, load_network
from training.progress import progress_bar
from training.stats.metrics import Floats, Labels01


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Predictions of held-out images, in the index's order within each fold."""

    position_N: NDArray[np.int64]
    """Rows of the run directory's index."""
    label_N: Labels01
    group_N: tuple[str, ...]
    view_logit_NK: Floats
    novelty_N: Floats
    cam_Nhw: NDArray[np.float32]
    """Of the plain view."""
    corrupted_logit_N: dict[str, Floats]
    """Of the plain view of shifted copies (`training.evaluation.corruptions`), by what was done to
    them."""

    def logit(self, profile: str) -> Floats:
        """Return the logits of a reading: the plain view's, or the mean over the policy's views."""
        return (
            self.view_logit_NK[:, 0]
            if profile == PLAIN_PROFILE
            else self.view_logit_NK.mean(axis=1)
        )


def fold_graphs(run: Run, final_graph: Path, folder: Path) -> dict[int, Path]:
    """Write to `folder`, for each held-out fold, the graph of the network that did not learn from
    it.

    With one held-out fold the final network is that network, and `final_graph` is its graph.
    """
    if run.recipe.validation == "holdout":
        return {0: final_graph}
    graphs = {fold: folder / f"fold-{fold}.onnx" for fold in run.held_out_folds}
    for fold, path in graphs.items():
        network = load_network(run.fold_weights(fold), run.recipe)
        network.prepare_for_export()
        trace(network, run.recipe.size, path, num_facts=network.num_facts)
    return graphs


def predict_held_out(run: Run, graphs: Mapping[int, Path]) -> HeldOut:
    """Run every held-out fold through its graph of `fold_graphs`."""
    views = POLICIES[run.recipe.tta_policy]
    position_N = np.concatenate([run.held_out(fold) for fold in run.held_out_folds])
    images_NHW, metadata_at = open_cache(run), metadata_of(run)
    parts = []
    with held_out_progress(len(position_N)) as progress:
        for fold, path in graphs.items():
            graph = OnnxGraph(path, Runtime(threads=run.recipe.threads))
            images = [(int(number), images_NHW[number]) for number in run.held_out(fold)]
            parts.append(answer_images(graph, images, views, metadata_at, progress))
    groups = [run.index.rows[i].person_group for i in position_N]
    return join_answers(position_N, run.index.label_N[position_N], groups, parts)


@dataclass(frozen=True, slots=True)
class Answers:
    """What one graph says of images, in their order: as they are, and of corrupted copies."""

    outputs: tuple[Outputs, ...]
    corrupted_logits: dict[str, list[float]]


def held_out_progress(images: int) -> "tqdm[Any]":
    """Show how far `answer_images` is, over all images and their copies."""
    return progress_bar(total=images * (1 + len(CORRUPTIONS)), desc="held-out images", unit="image")


def answer_images(
    graph: Graph,
    images: Sequence[tuple[int, Image8]],
    views: Sequence[TtaView],
    metadata_at: Callable[[int], NDArray[np.float32]],
    progress: "tqdm[Any]",
) -> Answers:
    """Run images, each with its number in the data set, through a graph, and their copies."""

    def counted(pairs: Iterator[tuple[int, Outputs]]) -> Iterator[Outputs]:
        for _, outputs in pairs:
            progress.update()
            yield outputs

    plain = tuple(counted(predict(graph, images, views, metadata_at)))
    corrupted_logits = {}
    for name in CORRUPTIONS:
        copies = ((number, corrupted(name, image_HW, number)) for number, image_HW in images)
        corrupted_logits[name] = [
            float(outputs.logit_N[0])
            for outputs in counted(predict(graph, copies, views[:1], metadata_at, with_map=False))
        ]
    return Answers(plain, corrupted_logits)


def join_answers(
    position_N: NDArray[np.int64],
    label_N: Labels01,
    groups: Sequence[str],
    parts: Sequence[Answers],
) -> HeldOut:
    """Return the predictions of images that one graph or several answered."""
    outputs = [one for part in parts for one in part.outputs]
    return HeldOut(
        position_N,
        label_N,
        tuple(groups),
        np.array([one.logit_N for one in outputs], dtype=np.float64),
        np.array([one.novelty_N[0] for one in outputs], dtype=np.float64),
        np.stack([one.cam_Nhw[0] for one in outputs]),
        {
            name: np.array([logit for part in parts for logit in part.corrupted_logits[name]])
            for name in CORRUPTIONS
        },
    )


def metadata_of(run: Run) -> Callable[[int], NDArray[np.float32]]:
    """Return a function from a position in the run directory's index to the metadata features of
    that image.
    """
    metadata_NM = encode(run.index.rows)
    return lambda position: metadata_NM[position]
