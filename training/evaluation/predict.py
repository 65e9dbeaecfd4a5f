"""Run images through a graph as serving does: plain, or all views of a TTA policy.

Shape suffixes: N images, K views of one image, H and W input rows and columns, h and w map rows and
columns, M columns of metadata.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cxr.graph import Graph
from cxr.interpret import Outputs
from cxr.tta import TtaView, make_views

_MAX_BATCH = 16

Key = TypeVar("Key")


def predict(
    graph: Graph,
    images: Iterable[tuple[Key, NDArray[np.uint8]]],
    views: Sequence[TtaView],
    metadata_of: Callable[[Key], NDArray[np.float32]] | None = None,
    *,
    with_map: bool = True,
) -> Iterator[tuple[Key, Outputs]]:
    """Answer images (uint8 [H, W]) in order. Yield each key and the outputs of its views, the plain
    view first.

    `metadata_of` returns `metadata_M` of a key, for graphs that read it. `with_map` says whether
    maps are wanted.
    """
    waiting = iter(images)
    while chunk := list(islice(waiting, max(1, _MAX_BATCH // len(views)))):
        batch_NHW = np.concatenate([make_views(image_HW, views) for _, image_HW in chunk])
        metadata_NM = None
        if metadata_of is not None and graph.num_facts:
            metadata_NM = np.repeat(
                np.stack([metadata_of(key) for key, _ in chunk]), len(views), axis=0
            )
        outputs = graph.run(batch_NHW, metadata_NM, with_map=with_map)
        for number, (key, _) in enumerate(chunk):
            mine = slice(number * len(views), (number + 1) * len(views))
            yield (
                key,
                Outputs(outputs.logit_N[mine], outputs.cam_Nhw[mine], outputs.novelty_N[mine]),
            )
