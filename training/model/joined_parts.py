"""Networks of an ensemble that only draw: others tell whether there is a finding, these tell where.

Nothing of them is needed for the logit, so a request without a heat map does not run them
(`cxr.graph.map_part`). The map stays exact: `pool(cam) + bias == logit`.

Shape suffixes: N images, 1 and C channels, H and W input rows and columns, h and w map rows and
columns, c rows or columns of the map of one network.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.model.area_pooling import averaging
from training.model.backbone import Backbone
from training.model.pooling import pool_map
from training.recipe.schema import Pool


class Drawing(nn.Module):
    """The map of one network, in cells of another size."""

    resize_hc: Tensor

    def __init__(self, backbone: Backbone, *, own_cells: int, cells: int) -> None:
        """Wrap a backbone, whose map has `own_cells` rows and columns, for a map of `cells`."""
        super().__init__()
        self.backbone = backbone
        self.head = nn.Conv2d(backbone.channels, 1, kernel_size=1, bias=False)
        self._has_own_size = own_cells == cells
        self.register_buffer("resize_hc", averaging(own_cells, cells), persistent=False)

    def forward(self, image_N1HW: Tensor) -> Tensor:
        """Return `cam_Nhw` of normalised images, without the head's bias."""
        cam_Ncc: Tensor = self.head(self.backbone(image_N1HW))[:, 0]
        return cam_Ncc if self._has_own_size else self.resize_hc @ cam_Ncc @ self.resize_hc.T


class DrawnMap(nn.Module):
    """The mean of several networks' maps, moved until it adds up to the logit of others."""

    nothing: Tensor

    def __init__(self, drawings: Sequence[Drawing], *, pool: Pool) -> None:
        super().__init__()
        self.drawings = nn.ModuleList(drawings)
        self.register_buffer("nothing", torch.zeros(1), persistent=False)
        self._pool = pool

    def forward(self, image_N1HW: Tensor, wanted_N: Tensor) -> Tensor:
        """Return `cam_Nhw` of normalised images, with `pool(cam) == wanted`."""
        cams = [drawing(image_N1HW) for drawing in self.drawings]
        pooled_N, cam_Nhw = pool_map(torch.stack(cams).mean(dim=0), self.nothing, self._pool)
        return cam_Nhw + (wanted_N - pooled_N)[:, None, None]

    def prepare_for_export(self) -> None:
        """Prepare the backbones."""
        for drawing in self.drawings:
            assert isinstance(drawing, Drawing)
            drawing.backbone.prepare_for_export()
