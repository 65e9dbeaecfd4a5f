"""EfficientNet-Lite0 as an encoder: the levels of a network that others trained on ImageNet.

EfficientNet-B0 without squeeze-and-excitation and with ReLU6 for swish (Tan and Le 2019; the Lite
variants are TensorFlow's, Apache-2.0).  A package of 17 MB carries its weights, so that it can
start from them without a network.

Shape suffixes: N images, 3 and C channels, H and W input rows and columns, h and w map rows and
columns.
"""

from monai.networks.nets.efficientnet import EfficientNet
from torch import Tensor, nn

_BLOCKS = [
    "r1_k3_s11_e1_i32_o16",
    "r2_k3_s22_e6_i16_o24",
    "r2_k5_s22_e6_i24_o40",
    "r3_k3_s22_e6_i40_o80",
    "r3_k5_s11_e6_i80_o112",
    "r4_k5_s22_e6_i112_o192",
    "r1_k3_s11_e6_i192_o320",
]
"""Stages as MONAI writes them: repeats, kernel, stride, expansion, channels in and out."""

_LEVELS = (2, 4, 6)
"""The last stages of 8, 16 and 32 pixels a cell."""

MOMENTUM = 0.1
"""Of EfficientNets' batch norms; MONAI's own (0.01) would need more steps than a small data set
has."""

LITE_WIDTHS = (40, 112, 320)
"""Channels of the levels."""


class Lite(EfficientNet):
    """EfficientNet-Lite0 without its head. Subclasses choose the outputs."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(
            _BLOCKS,
            in_channels=in_channels,
            num_classes=1,
            norm=("batch", {"eps": 1e-3, "momentum": MOMENTUM}),
        )
        for part_of_head in ("_avg_pooling", "_dropout", "_fc"):
            setattr(self, part_of_head, nn.Identity())
        for module in self.modules():
            if hasattr(module, "_swish"):
                module._swish = nn.ReLU6()  # noqa: SLF001 -- MONAI's own word for it, on each of its blocks

    def begin(self, image_NCHW: Tensor) -> Tensor:
        """Return what the first stage reads, half as many cells on a side."""
        stem: Tensor = self._swish(self._bn0(self._conv_stem(self._conv_stem_padding(image_NCHW))))
        return stem


class LiteEncoder(Lite):
    """Its levels, up to its last block."""

    def __init__(self) -> None:
        super().__init__(in_channels=3)
        for last_step in ("_conv_head", "_conv_head_padding", "_bn1"):
            setattr(self, last_step, nn.Identity())

    def forward(self, colours_N3HW: Tensor) -> list[Tensor]:
        """Return the levels of pictures about zero, sides multiples of 32, the finest first: [N, C,
        h, w] each.
        """
        x = self.begin(colours_N3HW)
        stages = [x := stage(x) for stage in self._blocks]
        return [stages[level] for level in _LEVELS]
