"""Networks for small lesions: they read fine detail and have a fine map.

A pneumothorax shows as a thin line without lung markings beyond it, on one side of the chest. The
input has three channels: the image, the image with local brightness and contrast removed, and the
difference from its mirror image. Coarser features are added to finer ones from the top down
(feature pyramid, Lin et al. 2017). The map has one cell for 8 x 8 pixels.

Shape suffixes: N images, 1, 3 and C channels, H and W input rows and columns, h and w map rows and
columns.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model.efficientnet_lite import LITE_WIDTHS, LiteEncoder

_REACH = 8
"""Pixels on a side of a tile; what is broader than about five tiles is taken for background."""

_FLAT = 0.15
"""Local spread, in the units of the network's input, below which detail is taken for noise and not
enlarged."""

_GREY_SHARE = 0.25
"""Of each look in each colour at first: pictures of ImageNet, about zero, spread half as far as one
look here."""


class TopDown(nn.Module):
    """Add coarse features to finer ones, down to the finest of the levels that it is given."""

    channels: int
    across: nn.ModuleList
    mix: nn.ModuleList

    def set_levels(self, across: Iterable[nn.Module], channels: int) -> None:
        """Take the steps that bring each level, the finest first, to `channels` channels."""
        self.channels = channels
        self.across = nn.ModuleList(across)
        self.mix = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1, bias=False), _norm_relu(channels)
            )
            for _ in self.across
        )

    def add_up(self, levels: Sequence[Tensor]) -> Tensor:
        """Return `feature_NChw` at the cells of the first level; each further one has half as many
        on a side.
        """
        sum_NChw: Tensor | None = None
        for level, across, mix in zip(
            reversed(levels), reversed(self.across), reversed(self.mix), strict=True
        ):
            finer = across(level)
            sum_NChw = mix(
                finer
                if sum_NChw is None
                else finer + functional.interpolate(sum_NChw, scale_factor=2.0)
            )
        assert sum_NChw is not None
        return sum_NChw


class Pyramid(TopDown):
    """Four levels of 4, 8, 16 and 32 pixels a cell, added up at 8.

    The order of the parts decides the random initial weights, and how an optimizer state is read.
    """

    def __init__(self, widths: tuple[int, int, int, int], channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 7, stride=4, padding=3, bias=False), _norm_relu(widths[0])
        )
        self.down = nn.ModuleList(_Block(above, below) for above, below in pairwise(widths))
        self.set_levels((nn.Conv2d(width, channels, 1) for width in widths[1:]), channels)

    def forward(self, image_N1HW: Tensor) -> Tensor:
        """Return `feature_NChw`, one cell for 8 x 8 pixels."""
        x = self.stem(see(image_N1HW))
        return self.add_up([x := block(x) for block in self.down])


class LitePyramid(TopDown):
    """The levels of 8, 16 and 32 pixels a cell of a network that can start from ImageNet, added up
    at 8.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        across = (
            nn.Sequential(nn.Conv2d(width, channels, 1, bias=False), nn.BatchNorm2d(channels))
            for width in LITE_WIDTHS
        )
        self.set_levels(across, channels)
        self.encoder = LiteEncoder()
        self.colours = nn.Conv2d(3, 3, 1, bias=False)
        nn.init.zeros_(self.colours.weight)
        self.colours.weight.data[:, :2] = (
            _GREY_SHARE  # detail and the image itself as a grey picture; the rest is learned
        )

    def forward(self, image_N1HW: Tensor) -> Tensor:
        """Return `feature_NChw`, one cell for 8 x 8 pixels."""
        return self.add_up(self.encoder(self.colours(see(image_N1HW))))


class _Block(nn.Module):
    """Two 3 x 3 convolutions about a shortcut (He et al. 2016), the first of which halves the
    sides.
    """

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, stride=2, padding=1, bias=False),
            _norm_relu(channels),
        )
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )
        self.shortcut = nn.Conv2d(channels_in, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(
            self.second(self.first(x)) + self.shortcut(functional.avg_pool2d(x, 2))
        )


def see(image_N1HW: Tensor) -> Tensor:
    """Return three looks `image_N3HW` at an image about zero: its detail, itself, and its detail
    less the other side's shade.
    """
    centered_N1HW = image_N1HW - _surroundings(image_N1HW)
    detail_N1HW = centered_N1HW / (
        _surroundings(centered_N1HW.square()).clamp_min(0.0).sqrt() + _FLAT
    )
    other_side_N1HW = _enlarge(functional.avg_pool2d(detail_N1HW.flip(3), _REACH))
    return torch.cat([detail_N1HW, image_N1HW, detail_N1HW - other_side_N1HW], dim=1)


def _surroundings(image_N1HW: Tensor) -> Tensor:
    """Average over about five tiles each way, by tiles: the cost of a wide window without one."""
    tile_N1hw = functional.avg_pool2d(image_N1HW, _REACH)
    return _enlarge(
        functional.avg_pool2d(tile_N1hw, 5, stride=1, padding=2, count_include_pad=False)
    )


def _enlarge(tile_N1hw: Tensor) -> Tensor:
    return functional.interpolate(
        tile_N1hw, scale_factor=float(_REACH), mode="bilinear", align_corners=False
    )


def _norm_relu(channels: int) -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
