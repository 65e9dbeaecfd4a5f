"""The pictures of an answer as PNG: the radiograph, and the heat map drawn over it.

Shape suffixes: H and W picture rows and columns, h and w map rows and columns.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr.heatmap import draw_heatmap

_EFFORT = 1
"""zlib level: a third larger than the best, and ten times sooner."""


def draw_heatmap_png(cam_hw: NDArray[np.float32], preview_HW: NDArray[np.uint8]) -> bytes:
    """Return the map of a logit, drawn over a picture of the radiograph."""
    return write_png(draw_heatmap(cam_hw, preview_HW))


def write_png(picture: NDArray[np.uint8]) -> bytes:
    """Return a grey or coloured picture as PNG."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=_EFFORT)
    return file.getvalue()
