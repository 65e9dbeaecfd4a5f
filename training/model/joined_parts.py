"""Networks of an ensemble that share the work: one tells whether there is a finding, another where.

Each stands in place of a backbone, and the head of the ensemble reads its last channel with a
weight of its own. The map stays exact: `pool(cam) + bias == logit`.

Shape suffixes: N images, 1 and C channels, H and W input rows and columns, h and w map rows and
columns.
"""

import torch
from torch import Tensor, nn

from training.model.backbone import Backbone
from training.model.pooling import pool_map
from training.recipe.schema import Pool


class WholeNetwork(Backbone):
    """A backbone with its own head, whose map and logit become features."""

    def __init__(self, backbone: Backbone, *, channels: int, pool: Pool) -> None:
        super().__init__()
        self.backbone, self.channels = backbone, channels
        self.head = nn.Conv2d(backbone.channels, 1, kernel_size=1, bias=False)
        self.bias = nn.Parameter(torch.zeros(1))
        self._pool = pool

    def read(self, feature_NChw: Tensor) -> tuple[Tensor, Tensor]:
        """Return `logit_N` and `cam_Nhw`."""
        return pool_map(self.head(feature_NChw)[:, 0], self.bias, self._pool)

    def prepare_for_export(self) -> None:
        """Prepare the backbone."""
        self.backbone.prepare_for_export()


class Whether(WholeNetwork):
    """Decides: its one channel holds its logit in every cell. Its own map is left out."""

    def __init__(self, backbone: Backbone, *, pool: Pool, cells: int) -> None:
        """Wrap a backbone and its head; `cells` are the rows and columns of the map beside it."""
        super().__init__(backbone, channels=1, pool=pool)
        self._cells = cells

    def forward(self, image_N1HW: Tensor) -> Tensor:
        """Return the logit of each image as `feature_N1hw`."""
        logit_N, _ = self.read(self.backbone(image_N1HW))
        return logit_N[:, None, None, None].expand(-1, 1, self._cells, self._cells)


class Where(WholeNetwork):
    """Draws: its last channel holds its map, moved so that it adds nothing to the logit.

    The channels before it are the backbone's, from which the novelty head knows an image.
    """

    def __init__(self, backbone: Backbone, *, pool: Pool) -> None:
        """Wrap a backbone and its head."""
        super().__init__(backbone, channels=backbone.channels + 1, pool=pool)

    def forward(self, image_N1HW: Tensor) -> Tensor:
        """Return the backbone's features and the moved map, one after the other."""
        feature_NChw = self.backbone(image_N1HW)
        logit_N, cam_Nhw = self.read(feature_NChw)
        pooled_N = logit_N - self.bias if self._pool == "mean" else logit_N
        moved_N1hw = (cam_Nhw - pooled_N[:, None, None])[:, None]
        return torch.cat([feature_NChw, moved_N1hw], dim=1)
