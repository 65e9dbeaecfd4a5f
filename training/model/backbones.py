"""The backbones: each network without its last, linear layer.

A backbone takes `image_N1HW`, float32 about zero, and gives `feature_NChw` after its last
activation, so that `training.model.network` can put a linear head and its map on any of them.

Shape suffixes: N images, 1 and C channels, H and W input rows and columns, h and w map rows and
columns, s rows or columns of an image that was averaged down.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import lcm

import torch
from monai.networks.nets.densenet import DenseNet
from monai.networks.nets.efficientnet import EfficientNetBN
from torch import Tensor, nn
from torch.nn import functional

from training.model.area_pooling import averaging
from training.model.efficientnet_lite import MOMENTUM, Lite
from training.model.pyramid import LitePyramid, Pyramid
from training.recipe.schema import EnsembleMember, IntensityNormalisation, NetworkName

_LEAST_SPREAD = 0.1
"""Added to the standard deviation, so that a blank image is not amplified to noise. A radiograph's
is about 1 at this point.
"""


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


class EfficientNetBackbone(EfficientNetBN, Backbone):
    """EfficientNet-B0 to B7 (Tan and Le 2019); one cell of the map for 32 x 32 pixels."""

    def __init__(self, name: str) -> None:
        norm = ("batch", {"eps": 1e-3, "momentum": MOMENTUM})
        super().__init__(
            name, pretrained=False, spatial_dims=2, in_channels=1, num_classes=1, norm=norm
        )
        self.channels = self._fc.in_features
        for part_of_head in ("_avg_pooling", "_dropout", "_fc"):
            setattr(self, part_of_head, nn.Identity())  # the head is `ChestNet`'s

    def forward(self, image_N1HW: Tensor) -> Tensor:
        """MONAI's own forward, up to the pooling."""
        stem = self._swish(self._bn0(self._conv_stem(self._conv_stem_padding(image_N1HW))))
        features: Tensor = self._swish(self._bn1(self._conv_head(self._blocks(stem))))
        return features

    def prepare_for_export(self) -> None:
        """Swap the memory-saving activation, an autograd function of MONAI's own, for the plain
        one.
        """
        self.set_swish(memory_efficient=False)


class EfficientNetLiteBackbone(Lite, Backbone):
    """EfficientNet-Lite0, see `training.model.efficientnet_lite`; one cell of the map for 32 x 32
    pixels.
    """

    def __init__(self) -> None:
        super().__init__(in_channels=1)
        self.channels = self._conv_head.out_channels

    def forward(self, image_N1HW: Tensor) -> Tensor:
        """MONAI's own forward, up to the pooling."""
        features: Tensor = self._swish(
            self._bn1(self._conv_head(self._blocks(self.begin(image_N1HW))))
        )
        return features


class DenseNetBackbone(DenseNet, Backbone):
    """DenseNet (Huang et al. 2017); one cell of the map for 32 x 32 pixels.

    MONAI has no class for DenseNet-161, but takes its dimensions.
    """

    def __init__(
        self, block_config: tuple[int, ...], *, init_features: int = 64, growth_rate: int = 32
    ) -> None:
        super().__init__(
            2, 1, 1, init_features=init_features, growth_rate=growth_rate, block_config=block_config
        )
        classifier = self.class_layers[-1]
        assert isinstance(classifier, nn.Linear)
        self.channels = classifier.in_features
        del self.class_layers  # the head is `ChestNet`'s

    def forward(self, image_N1HW: Tensor) -> Tensor:
        """MONAI's features end with a batch norm: the activation before the pooling belongs to
        them.
        """
        return functional.relu(self.features(image_N1HW))


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


class OwnIntensityNormalisation(Backbone):
    """A backbone that normalises an image's intensities first, so that exposure and contrast do not
    matter.

    `image` subtracts the image's mean and divides by its standard deviation. `high-pass` first
    subtracts the mean of the neighbourhood, so that only edges and texture are left.
    """

    def __init__(self, normalisation: IntensityNormalisation, backbone: Backbone) -> None:
        super().__init__()
        self.normalisation, self.backbone, self.channels = (
            normalisation,
            backbone,
            backbone.channels,
        )

    def forward(self, image_N1HW: Tensor) -> Tensor:
        """Return the backbone's maps of the normalised image."""
        centred = _about_zero(
            _about_zero(image_N1HW)
        )  # twice: what rounding leaves of a blank image would be blown up
        if self.normalisation == "high-pass":
            centred = centred - _neighbourhood_mean(centred)
        spread_N111 = centred.square().mean(dim=(2, 3), keepdim=True).sqrt()
        features: Tensor = self.backbone(centred / (spread_N111 + _LEAST_SPREAD))
        return features

    def prepare_for_export(self) -> None:
        """Prepare the backbone."""
        self.backbone.prepare_for_export()


def _about_zero(image_N1HW: Tensor) -> Tensor:
    """Take off each image's mean."""
    return image_N1HW - image_N1HW.mean(dim=(2, 3), keepdim=True)


def _neighbourhood_mean(image_N1HW: Tensor) -> Tensor:
    """Return the mean over a quarter of the side about each pixel: by columns, then by rows, which
    costs a fraction of a square window.
    """
    width = image_N1HW.shape[-1] // 4 | 1
    for window in ((width, 1), (1, width)):
        image_N1HW = functional.avg_pool2d(
            image_N1HW,
            window,
            stride=1,
            padding=(window[0] // 2, window[1] // 2),
            count_include_pad=False,
        )
    return image_N1HW


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


def make_backbone(name: NetworkName, normalisation: Sequence[IntensityNormalisation]) -> Backbone:
    """Make a network's backbone with random weights: one for each intensity normalisation, in
    parallel.
    """
    backbones = [
        BACKBONES[name]() if grey == "fixed" else OwnIntensityNormalisation(grey, BACKBONES[name]())
        for grey in normalisation
    ]
    return backbones[0] if len(backbones) == 1 else ParallelBackbone(backbones)


def join_backbones(parts: Sequence[EnsembleMember]) -> ParallelBackbone:
    """Make the backbones of run directories that were joined: given the largest of their sizes,
    with maps of as many cells.
    """
    given, cells = max(part.size for part in parts), lcm(*(part.cells for part in parts))
    return ParallelBackbone(
        [
            AtSize(
                make_backbone(part.network, part.normalisation),
                given=given,
                size=part.size,
                finer=cells // part.cells,
            )
            for part in parts
        ]
    )


def _conv3x3(channels_in: int, channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, kernel_size=3, stride=stride, padding=1, bias=False)


class PyramidBackbone(Pyramid, Backbone):
    """A small feature pyramid for thin lines and fine texture; one cell of the map for 8 x 8
    pixels.
    """


class LitePyramidBackbone(LitePyramid, Backbone):
    """The same on EfficientNet-Lite0, which can start from ImageNet; one cell of the map for 8 x 8
    pixels.
    """

    @property
    def pretrained(self) -> nn.Module:
        """The encoder."""
        return self.encoder


BACKBONES: dict[NetworkName, Callable[[], Backbone]] = {
    "efficientnet-b0": partial(EfficientNetBackbone, "efficientnet-b0"),
    "efficientnet-b1": partial(EfficientNetBackbone, "efficientnet-b1"),
    "efficientnet-b2": partial(EfficientNetBackbone, "efficientnet-b2"),
    "efficientnet-b3": partial(EfficientNetBackbone, "efficientnet-b3"),
    "efficientnet-b4": partial(EfficientNetBackbone, "efficientnet-b4"),
    "efficientnet-b5": partial(EfficientNetBackbone, "efficientnet-b5"),
    "efficientnet-b6": partial(EfficientNetBackbone, "efficientnet-b6"),
    "efficientnet-b7": partial(EfficientNetBackbone, "efficientnet-b7"),
    "efficientnet-lite0": EfficientNetLiteBackbone,
    "densenet-121": partial(DenseNetBackbone, (6, 12, 24, 16)),
    "densenet-161": partial(DenseNetBackbone, (6, 12, 36, 24), init_features=96, growth_rate=48),
    "densenet-169": partial(DenseNetBackbone, (6, 12, 32, 32)),
    "densenet-201": partial(DenseNetBackbone, (6, 12, 48, 32)),
    "resnet-tiny": partial(SmallResNetBackbone, (16, 32, 64)),
    "resnet-small": partial(SmallResNetBackbone, (32, 64, 128)),
    "resnet-medium": partial(SmallResNetBackbone, (56, 112, 224)),
    "pyramid-small": partial(PyramidBackbone, (24, 48, 64, 96), channels=48),
    "pyramid-medium": partial(PyramidBackbone, (32, 64, 96, 160), channels=64),
    "pyramid-large": partial(PyramidBackbone, (48, 96, 144, 224), channels=96),
    "pyramid-lite0": partial(LitePyramidBackbone, channels=64),
}
"""Every network that a recipe may name."""
