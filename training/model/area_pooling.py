"""Averaging pixels to fewer, as a matrix: parts of a pixel count in part.  Graphs know it, whatever
the two sizes.

Shape suffixes: s small side, H large side.
"""

import torch
from torch import Tensor


def averaging(side: int, cells: int) -> Tensor:
    """Return the weights `weight_sH`, float32, that average `side` pixels to `cells`; each row adds
    up to 1.
    """
    edge_s = torch.arange(cells + 1) * side / cells
    pixel_H = torch.arange(side)
    begin_sH = edge_s[:-1, None].maximum(pixel_H)
    end_sH = edge_s[1:, None].minimum(pixel_H + 1)
    return (end_sH - begin_sH).clamp(min=0) * cells / side
