"""Several backbones on the same image, of one input size or of several.

Shape suffixes: N images, 1 and C channels, H and W input rows and columns, h and w map rows and
columns, g blocks, b rows or columns of a block, s those that they are averaged to.
"""

from collections.abc import Sequence
from math import gcd

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model.area_pooling import averaging
from training.model.backbone import Backbone


class ParallelBackbone(Backbone):
    """Several backbones on the same image; the channels of their maps stand one after the other."""

    def __init__(self, members: Sequence[Backbone]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.channels = sum(member.channels for member in members)

    def forward(self, image_N1HW: Tensor) -> Tensor:
        """Run every member; their maps must have one size."""
        return torch.cat([member(image_N1HW) for member in self.members], dim=1)

    def prepare_for_export(self) -> None:
        """Prepare every member."""
        for member in self.members:
            assert isinstance(member, Backbone)
            member.prepare_for_export()


class AtSize(Backbone):
    """A backbone for images of another size than its own, with its map in finer cells.

    Each cell is repeated, which changes neither the mean over the map nor the log of its mean
    exponential.  Images are averaged in blocks of the smallest whole ratio, such as 5 pixels to 4,
    which takes a fifth of the time of one matrix over all pixels (320 to 256 pixels).
    """

    shrink_sb: Tensor

    def __init__(self, backbone: Backbone, *, given: int, size: int, finer: int) -> None:
        """Wrap a backbone of `size` pixels for images of `given`; `finer` repeats each cell of its
        map on either side.
        """
        super().__init__()
        self.backbone, self.channels = backbone, backbone.channels
        self._is_given_its_own = given == size
        self._finer = finer
        self._num_blocks = gcd(given, size)
        shrink_sb = averaging(given // self._num_blocks, size // self._num_blocks)
        self.register_buffer("shrink_sb", shrink_sb, persistent=False)

    def forward(self, image_N1HW: Tensor) -> Tensor:
        """Average the images down, run the backbone, repeat its cells."""
        image_N1hw = image_N1HW if self._is_given_its_own else self._shrink(image_N1HW)
        features: Tensor = self.backbone(image_N1hw)
        return (
            features
            if self._finer == 1
            else functional.interpolate(features, scale_factor=float(self._finer))
        )

    def _shrink(self, image_N1HW: Tensor) -> Tensor:
        num_blocks = self._num_blocks
        small, large = self.shrink_sb.shape
        columns = image_N1HW.shape[3]
        block_N1gbW = image_N1HW.reshape(-1, 1, num_blocks, large, columns)
        image_N1hW = (self.shrink_sb @ block_N1gbW).reshape(-1, 1, num_blocks * small, columns)
        block_N1hgb = image_N1hW.reshape(-1, 1, num_blocks * small, num_blocks, large)
        return (block_N1hgb @ self.shrink_sb.T).flatten(3)

    def prepare_for_export(self) -> None:
        """Prepare the backbone."""
        self.backbone.prepare_for_export()
