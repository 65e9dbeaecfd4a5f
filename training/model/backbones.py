"""The backbones: each network without its last, linear layer.

A backbone takes `image_N1HW`, float32 about zero, and gives `feature_NChw` after its last
activation, so that `training.model.network` can put a linear head and its map on any of them.

Shape suffixes: N images, 1 and C channels, H and W input rows and columns, h and w map rows and
columns, s rows or columns of an image that was averaged down.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import lcm

from monai.networks.nets.densenet import DenseNet
from monai.networks.nets.efficientnet import EfficientNetBN
from monai.networks.nets.resnet import ResNet
from torch import Tensor, nn
from torch.nn import functional

from training.model.backbone import Backbone
from training.model.efficientnet_lite import MOMENTUM, Lite
from training.model.eva_x import EvaXBackbone
from training.model.intensity_normalisation import OwnIntensityNormalisation
from training.model.joined_parts import Drawing, DrawnMap
from training.model.parallel_backbones import AtSize, ParallelBackbone
from training.model.pyramid import LitePyramid, Pyramid
from training.model.small_resnet import SmallResNetBackbone
from training.recipe.schema import EnsembleMember, IntensityNormalisation, NetworkName, Pool


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


class ResNet50Backbone(ResNet, Backbone):
    """ResNet-50 (He et al. 2016) that halves in the middle of a block, as torchvision's does; one
    cell of the map for 32 x 32 pixels.
    """

    def __init__(self) -> None:
        super().__init__(
            "bottleneck",
            [3, 4, 6, 3],
            [64, 128, 256, 512],
            spatial_dims=2,
            n_input_channels=1,
            conv1_t_stride=2,
            feed_forward=False,  # the head is `ChestNet`'s
            bias_downsample=False,
        )
        self.channels = 2048

    def forward(self, image_N1HW: Tensor) -> Tensor:
        """MONAI's own forward, up to the pooling."""
        stem = self.maxpool(self.act(self.bn1(self.conv1(image_N1HW))))
        features: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(stem))))
        return features


def make_backbone(name: NetworkName, normalisation: Sequence[IntensityNormalisation]) -> Backbone:
    """Make a network's backbone with random weights: one for each intensity normalisation, in
    parallel.
    """
    backbones = [
        BACKBONES[name]() if grey == "fixed" else OwnIntensityNormalisation(grey, BACKBONES[name]())
        for grey in normalisation
    ]
    return backbones[0] if len(backbones) == 1 else ParallelBackbone(backbones)


def join_drawings(members: Sequence[EnsembleMember], given: int, pool: Pool) -> DrawnMap:
    """Make the networks that only draw, for images of `given` pixels; the finest map decides the
    cells.
    """
    cells = max(member.cells for member in members)
    return DrawnMap(
        [
            Drawing(_sized(member, given, finer=1), own_cells=member.cells, cells=cells)
            for member in members
        ],
        pool=pool,
    )


def join_backbones(members: Sequence[EnsembleMember], given: int) -> ParallelBackbone:
    """Make the backbones of run directories that were joined, for images of `given` pixels, with
    maps of as many cells.
    """
    cells = lcm(*(member.cells for member in members))
    return ParallelBackbone(
        [_sized(member, given, finer=cells // member.cells) for member in members]
    )


def _sized(member: EnsembleMember, given: int, *, finer: int) -> AtSize:
    backbone = make_backbone(member.network, member.normalisation)
    return AtSize(backbone, given=given, size=member.size, finer=finer)


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
    "resnet-50": ResNet50Backbone,
    "pyramid-small": partial(PyramidBackbone, (24, 48, 64, 96), channels=48),
    "pyramid-medium": partial(PyramidBackbone, (32, 64, 96, 160), channels=64),
    "pyramid-large": partial(PyramidBackbone, (48, 96, 144, 224), channels=96),
    "pyramid-lite0": partial(LitePyramidBackbone, channels=64),
    "eva-x-tiny": EvaXBackbone,
}
"""Every network that a recipe may name."""
