"""A small residual network, for quick trainings and tests.

Shape suffixes: N images, 1 and C channels, H and W input rows and columns, h and w map rows and
columns.
"""

from torch import Tensor, nn
from torch.nn import functional

from training.model.backbone import Backbone


class _BasicBlock(nn.Module):
    """Two 3 x 3 convolutions about a shortcut (He et al. 2016, figure 2)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv3x3(channels_in, channels, stride), nn.BatchNorm2d(channels)
        self.conv2, self.norm2 = _conv3x3(channels, channels), nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if channels_in != channels or stride != 1:
            projection = nn.Conv2d(channels_in, channels, kernel_size=1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels))
        nn.init.zeros_(self.norm2.weight)  # a block begins as its shortcut (Goyal et al. 2017)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x)))))
        return functional.relu(inner + self.shortcut(x))


class SmallResNetBackbone(Backbone):
    """A residual network for inputs of 64 to 128 pixels; one cell of the map for 8 x 8 of them."""

    def __init__(self, widths: tuple[int, int, int], *, blocks: int = 2) -> None:
        super().__init__()
        self.channels = widths[-1]
        self.stem = nn.Sequential(
            _conv3x3(1, widths[0], stride=2), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        self.stages = nn.Sequential()
        channels = widths[0]
        for width in widths:
            stage = [_BasicBlock(channels, width, stride=1 if width == channels else 2)]
            stage += [_BasicBlock(width, width, stride=1) for _ in range(blocks - 1)]
            self.stages.append(nn.Sequential(*stage))
            channels = width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image_N1HW: Tensor) -> Tensor:
        """Run the stem and the stages."""
        features: Tensor = self.stages(self.stem(image_N1HW))
        return features


def _conv3x3(channels_in: int, channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, kernel_size=3, stride=stride, padding=1, bias=False)
