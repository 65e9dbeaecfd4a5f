"""Held-out predictions: each network of a run directory answers the images that it did not learn
from.

Each fold's network runs as an exported graph, on the same tensors and TTA views as in serving.

Shape suffixes: N held-out images, K views of one image, H and W input rows and columns, h and w map
rows and columns.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr.graph import OnnxGraph, Runtime
from cxr.interpret import PLAIN_PROFILE
from cxr.tta import POLICIES
from training.bundle.onnx_export import trace
from training.evaluation.corruptions import STRESSES, corrupted
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
    stressed_logit_N: dict[str, Floats]
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
    graphs = {fold: folder / f"fold-{fold}.onnx" for fold in run.held_back_folds}
    for fold, path in graphs.items():
        network = load_network(run.fold_weights(fold), run.recipe)
        network.prepare_for_export()
        trace(network, run.recipe.size, path, num_facts=network.num_facts)
    return graphs


def predict_held_out(run: Run, graphs: Mapping[int, Path]) -> HeldOut:
    """Run every held-out fold through its graph of `fold_graphs`."""
    views = POLICIES[run.recipe.tta_policy]
    position_N = np.concatenate([run.held_back(fold) for fold in run.held_back_folds])
    images_NHW, facts = open_cache(run), facts_of(run)
    answers, stressed_logits = [], {name: list[float]() for name in STRESSES}
    with progress_bar(
        total=len(position_N) * (1 + len(STRESSES)), desc="held-out images", unit="image"
    ) as progress:
        for fold, path in graphs.items():
            graph = OnnxGraph(path, Runtime(threads=run.recipe.threads))
            for _, outputs in predict(
                graph, ((i, images_NHW[i]) for i in run.held_back(fold)), views, facts
            ):
                answers.append((outputs.logit_N, outputs.novelty_N[0], outputs.cam_Nhw[0]))
                progress.update()
            for name, logits in stressed_logits.items():
                copies = ((i, corrupted(name, images_NHW[i], int(i))) for i in run.held_back(fold))
                for _, outputs in predict(graph, copies, views[:1], facts):
                    logits.append(float(outputs.logit_N[0]))
                    progress.update()
    return HeldOut(
        position_N,
        run.index.label_N[position_N],
        tuple(run.index.rows[i].person_group for i in position_N),
        np.array([logit_K for logit_K, _, _ in answers], dtype=np.float64),
        np.array([novelty for _, novelty, _ in answers], dtype=np.float64),
        np.stack([cam_hw for _, _, cam_hw in answers]),
        {name: np.array(logits) for name, logits in stressed_logits.items()},
    )


def facts_of(run: Run) -> Callable[[np.int64], NDArray[np.float32]]:
    """Return a function from a position in the run directory's index to the metadata features of
    that image.
    """
    metadata_NM = encode(run.index.rows)
    return lambda position: metadata_NM[position]
