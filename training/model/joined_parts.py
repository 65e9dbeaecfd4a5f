"""Networks of an ensemble that only draw: others tell whether there is a finding, these tell where.

Nothing of them is needed for the logit, so a request without a heat map does not run them
(`cxr.graph.map_part`). The map stays exact: `pool(cam) + bias == logit`.

Shape suffixes: N images, 1 and C channels, H and W input rows and columns, h and w map rows and
columns.
"""

import torch
from torch import Tensor, nn

from training.model.backbone import Backbone
from training.model.pooling import pool_map
from training.recipe.schema import Pool


class DrawnMap(nn.Module):
    """Draws one map, the mean of several networks', and moves it until it adds up to a logit."""

    nothing: Tensor

    def __init__(self, backbone: Backbone, *, pool: Pool) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Conv2d(backbone.channels, 1, kernel_size=1, bias=False)
        self.register_buffer("nothing", torch.zeros(1), persistent=False)
        self._pool = pool

    def forward(self, image_N1HW: Tensor, wanted_N: Tensor) -> Tensor:
        """Return `cam_Nhw` of normalised images, with `pool(cam) == wanted`.

        The heads' biases are left out: moving the map makes them good.
        """
        cam_Nhw: Tensor = self.head(self.backbone(image_N1HW))[:, 0]
        pooled_N, cam_Nhw = pool_map(cam_Nhw, self.nothing, self._pool)
        return cam_Nhw + (wanted_N - pooled_N)[:, None, None]
