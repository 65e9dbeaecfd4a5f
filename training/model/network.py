"""The network: a backbone, a linear head that yields the map, and a novelty head.

The head gives one number a cell, the class activation map `cam = w . f` (Zhou et al. 2016), and the
logit is pooled from it, so that the map is exact: `pool(cam) + bias == logit`.  No gradients are
needed to explain an answer. A mean weighs all cells alike. The log of the mean exponential
(Pinheiro and Collobert 2015) lets a few cells decide; its bias is part of the map.

Shape suffixes: N images, 1 and C channels, H and W input rows and columns, h and w map rows and
columns, M metadata columns, D values that describe an image to the novelty head.
"""

from collections.abc import Sequence
from typing import Self, TypeVar, cast

import torch
from torch import Tensor, nn

from cxr.metadata_features import COLUMNS
from training.model.backbone import Backbone
from training.model.backbones import join_backbones, join_drawings, make_backbone
from training.model.joined_parts import Drawing, DrawnMap
from training.model.novelty_head import NoveltyHead
from training.model.parallel_backbones import AtSize, ParallelBackbone
from training.model.pooling import pool_map
from training.recipe.schema import IntensityNormalisation, NetworkName, Pool, Recipe

GREY_MEAN, GREY_STD = 0.48, 0.23
"""About the mean and spread of chest radiographs on a 0..1 grey scale; the first batch norm does
the rest."""

Item = TypeVar("Item")

_LATE_PACE = 5.0
"""How much faster than others the few weights of the metadata move: a step of AdamW moves each by
about the learning rate."""


class ChestNet(nn.Module):
    """From uint8 radiographs to a logit, its map and a novelty; what `training.bundle.export`
    writes as a graph.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        dropout: float = 0.2,
        pool: Pool = "mean",
        metadata: bool = False,
        drawing: DrawnMap | None = None,
    ) -> None:
        """Take a backbone; `drawing` is another network's, that gives the map instead."""
        super().__init__()
        self.pool = pool
        self.backbone = backbone
        self.drawing = drawing
        channels = backbone.channels
        self.dropout = nn.Dropout2d(dropout)
        self.head = nn.Conv2d(channels, 1, kernel_size=1, bias=False)
        self.bias = nn.Parameter(torch.zeros(1))
        self.late = nn.Parameter(torch.zeros(len(COLUMNS))) if metadata else None
        self.novelty = NoveltyHead(channels)
        self.reset_head()

    @classmethod
    def named(
        cls,
        name: NetworkName,
        *,
        normalisation: Sequence[IntensityNormalisation] = ("fixed",),
        dropout: float = 0.2,
        pool: Pool = "mean",
        metadata: bool = False,
    ) -> Self:
        """Make the network that a recipe names, with random weights; an ensemble with a member for
        each of `normalisation`.
        """
        return cls(
            make_backbone(name, normalisation), dropout=dropout, pool=pool, metadata=metadata
        )

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """Make a recipe's network, with random weights."""
        if recipe.joined:
            return cls._of_joined(recipe)
        backbone = make_backbone(recipe.network, recipe.normalisation)
        return cls(backbone, dropout=recipe.dropout, pool=recipe.pool, metadata=recipe.metadata)

    @classmethod
    def _of_joined(cls, recipe: Recipe) -> Self:
        given = max(member.size for member in recipe.joined)
        deciding, drawing = _by_part(recipe, recipe.joined)
        return cls(
            join_backbones(deciding, given),
            dropout=recipe.dropout,
            pool=recipe.pool,
            drawing=join_drawings(drawing, given, recipe.pool) if drawing else None,
        )

    @classmethod
    @torch.no_grad()
    def ensemble(cls, members: Sequence["ChestNet"]) -> Self:
        """Join trained networks into one whose map is the mean of their maps. With a mean pool its
        logit is the mean of theirs.

        A mean of linear heads is one linear head on all their features, so an ensemble is a network
        like any other, and its map is as exact.  The members' backbones become parts of it; the
        novelty is to be fitted anew.
        """
        ensemble = cls(
            ParallelBackbone([member.backbone for member in members]),
            dropout=0.0,
            pool=members[0].pool,
        )
        ensemble.answer_with_mean(members)
        return ensemble.eval()

    @classmethod
    @torch.no_grad()
    def joined(cls, networks: Sequence["ChestNet"], recipe: Recipe) -> Self:
        """Put the trained networks of joined run directories side by side, in the order of
        `recipe.joined`; as `ensemble` else. Those that only draw have a mean of their own.
        """
        joined = cls.of(recipe)
        deciding, drawing = _by_part(recipe, networks)
        members = cast("ParallelBackbone", joined.backbone).members
        for place, network in zip(members, deciding, strict=True):
            _take_over(place, network)
        joined.answer_with_mean(deciding)
        places = [] if joined.drawing is None else list(joined.drawing.drawings)
        for place, network in zip(cast("list[Drawing]", places), drawing, strict=True):
            _take_over(place.backbone, network)
            place.head.load_state_dict(network.head.state_dict())
        return joined.eval()

    def answer_with_mean(self, networks: Sequence["ChestNet"]) -> None:
        """Make the head the mean of others', whose features stand one after the other in this
        one's.
        """
        weights = [network.head.weight for network in networks]
        self.head.weight.copy_(torch.cat(weights, dim=1) / len(networks))
        self.bias.copy_(torch.stack([network.bias for network in networks]).mean(dim=0))

    @property
    def num_facts(self) -> int:
        """Number of metadata columns that add to the logit; 0 if the network reads the image
        alone.
        """
        return 0 if self.late is None else len(self.late)

    @property
    def cam_bias(self) -> float:
        """What must be added to the pooled map to have the logit."""
        return float(self.bias.detach()) if self.pool == "mean" else 0.0

    def reset_head(self) -> None:
        """Draw the last layer anew, for another task on the same features."""
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.bias)
        if self.late is not None:
            nn.init.zeros_(self.late)

    def forward(self, image_NHW: Tensor, metadata_NM: Tensor | None = None) -> tuple[Tensor, ...]:
        """Read uint8 images from `cxr.preprocess`, and metadata features from
        `cxr.metadata_features`.

        Returns:
            `logit_N`, raw; `cam_Nhw`, in units of the logit, with `pool(cam) + cam_bias == logit`;
            `novelty_N`, the whitened distance from the training set, see
            `training.model.novelty_head`; if metadata adds to the logit, `bias_N`, the sum of
            `cam_bias` and that addition. All float32.
        """
        image_N1HW = image_NHW[:, None].to(torch.float32) / 255.0
        feature_NChw = self.forward_features(image_N1HW)
        logit_N, cam_Nhw = self.read(feature_NChw, metadata_NM)
        if self.drawing is not None:
            # Of tensors alone: the exporter cannot follow a number that is read out of one, and
            # would trace everything a second time.
            pooled_N = logit_N - self.bias if self.pool == "mean" else logit_N
            cam_Nhw = self.drawing(_normalised(image_N1HW), pooled_N)
        novelty_N = self.novelty(image_N1HW, feature_NChw.mean(dim=(2, 3)))
        if self.late is None or metadata_NM is None:
            return logit_N, cam_Nhw, novelty_N
        bias_N = self._beside(metadata_NM)
        return logit_N, cam_Nhw, novelty_N, bias_N + self.bias if self.pool == "mean" else bias_N

    def forward_features(self, image_N1HW: Tensor) -> Tensor:
        """Return the last feature maps `feature_NChw` of float images on a 0..1 grey scale."""
        feature_NChw: Tensor = self.backbone(_normalised(image_N1HW))
        return feature_NChw

    def read(
        self, feature_NChw: Tensor, metadata_NM: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return `logit_N` and `cam_Nhw` of feature maps; in training, whole channels are dropped.
        Metadata features add to the logit, not to the map. The map is that of the networks that
        decide, also if others draw.
        """
        logit_N, cam_Nhw = self._read_image(feature_NChw)
        if self.late is None or metadata_NM is None:
            return logit_N, cam_Nhw
        return logit_N + self._beside(metadata_NM), cam_Nhw

    def _beside(self, metadata_NM: Tensor) -> Tensor:
        """Return what the metadata adds to the logit."""
        assert self.late is not None
        return _LATE_PACE * (metadata_NM @ self.late)

    def _read_image(self, feature_NChw: Tensor) -> tuple[Tensor, Tensor]:
        cam_Nhw: Tensor = self.head(self.dropout(feature_NChw))[:, 0]
        return pool_map(cam_Nhw, self.bias, self.pool)

    def forward_logit(self, image_N1HW: Tensor, metadata_NM: Tensor | None = None) -> Tensor:
        """Return `logit_N` of float images and their metadata features."""
        return self.read(self.forward_features(image_N1HW), metadata_NM)[0]

    def describe(self, image_N1HW: Tensor) -> Tensor:
        """Return `described_ND` of float images, from which `novelty` is fitted."""
        return self.novelty.describe(image_N1HW, self.forward_features(image_N1HW).mean(dim=(2, 3)))

    def prepare_for_export(self) -> None:
        """Leave training mode, and swap in the backbone what ONNX does not know."""
        self.eval()
        self.backbone.prepare_for_export()
        if self.drawing is not None:
            self.drawing.prepare_for_export()


def _normalised(image_N1HW: Tensor) -> Tensor:
    return (image_N1HW - GREY_MEAN) / GREY_STD


def _by_part(recipe: Recipe, items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Divide what stands in the order of `recipe.joined` into what decides and what only draws."""
    pairs = list(zip(recipe.joined, items, strict=True))
    return (
        [item for member, item in pairs if member.part != "where"],
        [item for member, item in pairs if member.part == "where"],
    )


def _take_over(place: nn.Module, network: ChestNet) -> None:
    """Copy a trained backbone into its place among joined ones."""
    cast("AtSize", place).backbone.load_state_dict(network.backbone.state_dict())
