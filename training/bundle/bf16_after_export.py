"""Allow `CXR_PRECISION=fast` later, for a bundle that was exported where bf16 could not be
measured.

Only images count that the bundle did not learn from: its held-out fold, or other images of the
user.

Shape suffixes: N images, H and W input rows and columns, M columns of metadata.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr.bundle import Bundle, read_bundle
from cxr.decode import quiet_libraries
from cxr.evaluation_schema import UnansweredFile
from cxr.graph import Graph, OnnxGraph
from cxr.interpret import Outputs
from cxr.manifest import FastPrecision
from cxr.tta import PLAIN
from training.bundle.bf16 import (
    MIN_IMAGES,
    Bf16Decision,
    NotMeasurable,
    joined,
    judge_fast,
    require_bf16,
)
from training.bundle.precision_cost import Cost, measure_cost
from training.data import load_index
from training.evaluation.labelled_images import read_images, roles
from training.evaluation.predict import predict
from training.progress import progress_bar

Seen = tuple[NDArray[np.uint8], NDArray[np.float32], int]
"""An image as the graph reads it, its metadata features and its label: `image_HW`, `metadata_M`, 0
or 1.
"""


def judge_bundle(
    bundle_dir: Path, data_dir: Path, *, groups: Path | None = None, min_images: int = MIN_IMAGES
) -> tuple[Bf16Decision, FastPrecision | None]:
    """Measure a bundle in bf16 on the images of a folder that it had not learned from.

    Raises:
        BundleError: the bundle can't be served.
        DataError: the folder has no known layout.
        NotMeasurable: this processor, or these images, can't measure it.
    """
    quiet_libraries()
    require_bf16()
    bundle = read_bundle(bundle_dir)
    unseen = read_unseen(bundle, data_dir, groups=groups, min_images=min_images)

    def answers(graph: Graph) -> Outputs:
        images = ((number, image_HW) for number, (image_HW, _, _) in enumerate(unseen))
        return joined(
            outputs
            for _, outputs in predict(graph, images, (PLAIN,), lambda number: unseen[number][1])
        )

    def cost_in(open_other: Callable[[Path], Graph]) -> Cost:
        exact, other = answers(OnnxGraph(bundle.graph_path)), answers(open_other(bundle.graph_path))
        label_N = np.array([label for _, _, label in unseen], dtype=np.int_)
        return measure_cost(label_N, exact, other, bundle.manifest.profile())

    return judge_fast(bundle.graph_path, bundle.golden, cost_in)


def read_unseen(
    bundle: Bundle, data_dir: Path, *, groups: Path | None = None, min_images: int = MIN_IMAGES
) -> Sequence[Seen]:
    """Read the images that a bundle did not learn from. Raise `NotMeasurable` if they are unknown
    or too few.
    """
    role_of, index = (
        roles(bundle),
        load_index(data_dir, purpose="test", groups=groups, finding=bundle.manifest.finding),
    )
    if not role_of:
        raise NotMeasurable("the bundle has no splits.csv, which says what it learned from")
    rows = [row for row in index.rows if role_of.get(row.sha256) != "fitted"]
    shown = progress_bar(iterable=rows, total=len(rows), unit="image")
    refused: list[UnansweredFile] = []
    unseen = [
        (image.image_HW, image.metadata_M, image.row.label)
        for image in read_images(shown, data_dir, bundle.manifest.preprocess, refused)
    ]
    if len(unseen) < min_images or len({label for _, _, label in unseen}) < 2:
        raise NotMeasurable(
            f"it takes {min_images} images of both classes that the bundle had not learned from, "
            f"and {data_dir} has "
            f"{len(unseen)} ({len(refused)} can't be read); one that learned from all is to be "
            f"exported anew on this processor"
        )
    return unseen
