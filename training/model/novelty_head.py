"""Distance of an image from the training images, in its coarse shape and in the network's features.

Pooled features hardly encode position: those of a chest upside down are nearly those of an upright
one. A thumbnail of a dozen pixels a side does encode it, for every network.  Both are whitened on
the training images (Mahalanobis 1936).  An upright chest is nearer to the training images than the
same image turned or inverted. If it is not, it is probably turned itself.

Shape suffixes: N images, 1 channel, H and W input rows and columns, t thumbnail rows or columns, T
values of a shape, C features, D = T + C, V values, K whitened components.
"""

import torch
from torch import Tensor, nn

from training.model.area_pooling import averaging

THUMBNAIL_SIDE = 12
"""Fine enough to separate up from down, too coarse to separate one patient from another."""

FEATURE_COMPONENTS = 64
"""Principal components of the features that count."""

_SHAPE_VALUES = THUMBNAIL_SIDE**2 + 1
_SHAPE_RIDGE = 1.0
"""In units of the mean variance.  Without it, what training images never do would outweigh all
else: an even slope would pass for a chest because it lacks detail, and few images would not suffice
for a fit."""

_FLAT = 0.01
"""Standard deviation of grey values (0..1) under which an image counts as flat; radiographs have
0.08 and more.
"""

_CONTRAST_WEIGHT = 4.0
"""Weight of a factor e of contrast, relative to a thumbnail's pixels with standard deviation 1."""

_FEATURE_POWER = 0.25
"""A few good radiographs have features a hundred times as far out as the others'; this keeps them
from setting the limits."""

_VARIANCE_FLOOR = 1e-6
_NO_DISTANCE = 1e-6

_UNRESOLVED = 1.0
"""Median whitened distance (about the root of the components' number as a rule) under which nothing
but rounding
varies: a network that has learned next to nothing gives all images the same features."""

_LEAST_FEATURES = 0.1
"""Keeps the features' distance, about 1 as a rule, from 0, where its power is infinitely steep."""


class NoveltyHead(nn.Module):
    """From images and their pooled features, whatever network pooled them, to `novelty_N`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shape = Whitening(_SHAPE_VALUES, _SHAPE_VALUES)
        self.features = Whitening(channels, FEATURE_COMPONENTS)

    def forward(self, image_N1HW: Tensor, feature_NC: Tensor) -> Tensor:
        """Return the distance `novelty_N` of float images on a 0..1 grey scale from the training
        set.
        """
        return self.distance(self.describe(image_N1HW, feature_NC))

    def describe(self, image_N1HW: Tensor, feature_NC: Tensor) -> Tensor:
        """Gather what the distance is measured on, `described_ND`; those of all training images are
        what `fit` wants.
        """
        return torch.cat([coarse_shape(image_N1HW), feature_NC], dim=1)

    def distance(self, described_ND: Tensor) -> Tensor:
        """Return the whitened distance: the shape's, times its ratio to that of the nearest wrong
        view, times the features'.

        With `s` (shape), `w` (shape in its nearest wrong view) and `f` (features), each a distance
        whose median over the training images is 1 when they are as they should be: `s * s / w * f
        ** 0.25`.
        """
        shape_NT, feature_NC = self._parts(described_ND)
        s_N = self.shape(shape_NT)
        f_N = (self.features(feature_NC).square() + _LEAST_FEATURES**2).sqrt()
        w_N = torch.stack([self.shape(view_NT) for view_NT in wrong_views(shape_NT)]).amin(dim=0)
        novelty_N: Tensor = s_N * (s_N / (w_N + _NO_DISTANCE)) * f_N**_FEATURE_POWER
        return novelty_N

    def fit(self, described_ND: Tensor) -> None:
        """Fit mean and spread to the descriptions of the training images."""
        shape_NT, feature_NC = self._parts(described_ND)
        self.shape.fit(shape_NT, ridge=_SHAPE_RIDGE)
        self.features.fit(feature_NC)

    def _parts(self, described_ND: Tensor) -> tuple[Tensor, Tensor]:
        return described_ND[:, :_SHAPE_VALUES], described_ND[:, _SHAPE_VALUES:]


class Whitening(nn.Module):
    """A Mahalanobis distance that looks at the directions that vary most; its median over the
    images of the fit is 1.
    """

    mean_V: Tensor
    whitening_KV: Tensor

    def __init__(self, values: int, components: int) -> None:
        super().__init__()
        self.register_buffer("mean_V", torch.zeros(values))
        self.register_buffer("whitening_KV", torch.zeros(components, values))

    def forward(self, value_NV: Tensor) -> Tensor:
        """Return the distance of each row; 0 before the fit, and if there was nothing to fit to."""
        return ((value_NV - self.mean_V) @ self.whitening_KV.T).square().sum(dim=1).sqrt()

    @torch.no_grad()
    def fit(self, value_NV: Tensor, *, ridge: float = 0.0) -> None:
        """Fit mean and principal axes; `ridge` is added to each variance, in units of their mean.

        Without a ridge, fewer rows than components leave the remaining components zero: they add
        nothing.
        """
        value_NV = value_NV.double()
        mean_V = value_NV.mean(dim=0)
        variance_V, axis_VV = torch.linalg.eigh(torch.cov(value_NV.T))
        count = (
            min(self.whitening_KV.shape)
            if ridge
            else min(*self.whitening_KV.shape, len(value_NV) - 1)
        )
        spread_K = (
            variance_V[-count:].clamp(min=0) + ridge * variance_V.mean() + _VARIANCE_FLOOR
        ).sqrt()
        self.mean_V.copy_(mean_V)
        self.whitening_KV.zero_()
        self.whitening_KV[:count] = (axis_VV[:, -count:] / spread_K).T.float()
        median = self(value_NV.float()).median()
        self.whitening_KV *= 1.0 / median if median > _UNRESOLVED else 0.0


def coarse_shape(image_N1HW: Tensor) -> Tensor:
    """Return `shape_NT`: a thumbnail about its mean and over its spread, row by row, and the
    logarithm of that spread.
    """
    rows_tH, columns_tW = (
        averaging(side, THUMBNAIL_SIDE).to(image_N1HW) for side in image_N1HW.shape[-2:]
    )
    thumbnail_NT = (rows_tH @ image_N1HW[:, 0] @ columns_tW.T).flatten(start_dim=1)
    thumbnail_NT = thumbnail_NT - thumbnail_NT.mean(dim=1, keepdim=True)
    spread_N1 = thumbnail_NT.square().mean(dim=1, keepdim=True).sqrt() + _FLAT
    return torch.cat([thumbnail_NT / spread_N1, _CONTRAST_WEIGHT * spread_N1.log()], dim=1)


def wrong_views(shape_NT: Tensor) -> list[Tensor]:
    """Return the shapes of the same images turned by 90, 180 and 270 degrees, and with black and
    white exchanged.
    """
    thumbnail_NT, contrast_N1 = shape_NT[:, :-1], shape_NT[:, -1:]
    thumbnail_Ntt = thumbnail_NT.reshape(-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    turned = [
        torch.rot90(thumbnail_Ntt, quarters, (1, 2)).flatten(start_dim=1) for quarters in (1, 2, 3)
    ]
    return [torch.cat([view_NT, contrast_N1], dim=1) for view_NT in (*turned, -thumbnail_NT)]
