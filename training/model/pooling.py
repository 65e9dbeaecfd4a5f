"""How a map adds up to a logit.

Shape suffixes: N images, 1 channel, h and w map rows and columns.
"""

import math

from torch import Tensor

from training.recipe.schema import Pool


def pool_map(cam_Nhw: Tensor, bias: Tensor, pool: Pool) -> tuple[Tensor, Tensor]:
    """Return `logit_N`, and the map in units of it.

    With `mean` the bias is added after pooling; with `lse` it is a part of the map.
    """
    if pool == "mean":
        return cam_Nhw.mean(dim=(1, 2)) + bias, cam_Nhw
    cam_Nhw = cam_Nhw + bias
    cells = cam_Nhw.shape[1] * cam_Nhw.shape[2]
    return cam_Nhw.flatten(1).logsumexp(dim=1) - math.log(cells), cam_Nhw
