"""The interface of a backbone.

A backbone takes `image_N1HW`, float32 about zero, and gives `feature_NChw` after its last
activation.
"""

from torch import Tensor, nn


class Backbone(nn.Module):
    """The interface of a backbone for `ChestNet`."""

    channels: int

    def forward(self, image_N1HW: Tensor) -> Tensor:
        """Return the last feature maps `feature_NChw`, after their activation."""
        raise NotImplementedError

    @property
    def pretrained(self) -> nn.Module:
        """The part that starts from a file of weights; by default the whole backbone."""
        return self

    def prepare_for_export(self) -> None:
        """Replace parts that ONNX does not know by equivalent ones."""
