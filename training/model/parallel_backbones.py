"""Several backbones on the same image, of one input size or of several.

Shape suffixes: N images, 1 and C channels, H and W input rows and columns, h and w map rows and
columns, s rows or columns of an image that was averaged down.
"""

from collections.abc import Sequence

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
    exponential.
    """

    shrink_sH: Tensor

    def __init__(self, backbone: Backbone, *, given: int, size: int, finer: int) -> None:
        """Wrap a backbone of `size` pixels for images of `given`; `finer` repeats each cell of its
        map on either side.
        """
        super().__init__()
        self.backbone, self.channels = backbone, backbone.channels
        self._is_given_its_own, self._finer = given == size, finer
        self.register_buffer("shrink_sH", averaging(given, size), persistent=False)

    def forward(self, image_N1HW: Tensor) -> Tensor:
        """Average the images down, run the backbone, repeat its cells."""
        image_N1hw = (
            image_N1HW if self._is_given_its_own else self.shrink_sH @ image_N1HW @ self.shrink_sH.T
        )
        features: Tensor = self.backbone(image_N1hw)
        return (
            features
            if self._finer == 1
            else functional.interpolate(features, scale_factor=float(self._finer))
        )

    def prepare_for_export(self) -> None:
        """Prepare the backbone."""
        self.backbone.prepare_for_export()
