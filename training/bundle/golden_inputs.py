"""Golden inputs: phantoms whose answers every host must reproduce before it serves.

Phantoms are synthetic: no golden input shows a patient.  Shape suffixes: N images, H and W input
rows and columns, M columns of metadata.
"""

import numpy as np
from numpy.typing import NDArray

from cxr.golden_answers import Golden
from cxr.graph import Graph
from cxr.metadata_features import encode_metadata_features
from cxr.phantom import draw_phantom
from cxr.preprocess import PreprocessSpec, preprocess
from cxr.radiograph import Metadata, Processing, Radiograph
from training.bundle.release_gates.gate import TOLERANCES
from training.bundle.release_gates.graph_gates import edge_images

_PHANTOM_SIZES = ((1024, 1024), (1140, 912), (700, 1100), (300, 256), (2048, 1760))
"""Rows and columns as stored: square, tall, wide, small, large."""

_EDGES = (0, 1, 2)
"""Of the edge images, those whose answers stay tame on every engine: black, white, a ramp."""

_METADATA = (
    Metadata(58.0, "M", "PA"),
    Metadata(31.0, "F", "AP"),
    Metadata(),
    Metadata(None, "F", None),
    Metadata(80.0),
)
"""Made ones, told in turn to graphs that read them."""


def golden_images(spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Make the golden inputs: phantoms of several sizes through `preprocess`, then flat and ramp
    images.
    """
    phantoms = [
        _input_of(rows, columns, seed, spec) for seed, (rows, columns) in enumerate(_PHANTOM_SIZES)
    ]
    return np.concatenate([np.stack(phantoms), edge_images(spec.size)[list(_EDGES)]])


def make_golden(graph: Graph, spec: PreprocessSpec) -> Golden:
    """Run the graph on the golden inputs. The parity gates compare these answers with the
    network's.
    """
    image_NHW = golden_images(spec)
    metadata_NM = (
        encode_metadata_features(_METADATA[i % len(_METADATA)] for i in range(len(image_NHW)))
        if graph.num_facts
        else None
    )
    outputs = graph.run(image_NHW, metadata_NM)
    return Golden(
        image_NHW, outputs.logit_N, outputs.cam_Nhw, outputs.novelty_N, TOLERANCES, metadata_NM
    )


def _input_of(rows: int, columns: int, seed: int, spec: PreprocessSpec) -> NDArray[np.uint8]:
    pixels_HW = draw_phantom(rows, columns, seed=seed)
    return preprocess(
        Radiograph(pixels_HW, metadata=Metadata(), processing=Processing("png", rows, columns)),
        spec,
    )
