"""The network: a backbone, a linear head that is its own map, and a distance from the training set.

Global average pooling before a linear layer can be swapped with it, so the
class activation map `cam = w . f` (Zhou et al. 2016) is exact:
`mean(cam) + bias == logit`.  No gradients are needed to explain an answer.

Shape suffixes: N images, 1 and C channels, H and W input rows and columns,
h and w map rows and columns, K whitened components.
"""

from typing import Self

import torch
from torch import Tensor, nn

from training.backbones import BACKBONES, Backbone
from training.config import NetworkName

GREY_MEAN, GREY_STD = 0.48, 0.23
"""About the mean and spread of chest radiographs on a 0..1 grey scale; the first batch norm does the rest."""

NOVELTY_COMPONENTS = 64
"""Principal components that the novelty distance looks at."""

_VARIANCE_FLOOR = 1e-6


class ChestNet(nn.Module):
    """From uint8 radiographs to a logit, its map and a novelty; what `training.export` writes as a graph."""

    novelty_mean_C: Tensor
    novelty_whitening_KC: Tensor

    def __init__(self, backbone: Backbone, *, dropout: float = 0.2) -> None:
        super().__init__()
        self.backbone = backbone
        channels = backbone.channels
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Conv2d(channels, 1, kernel_size=1, bias=False)
        self.bias = nn.Parameter(torch.zeros(1))
        self.register_buffer("novelty_mean_C", torch.zeros(channels))
        self.register_buffer("novelty_whitening_KC", torch.zeros(NOVELTY_COMPONENTS, channels))
        self.reset_head()

    @classmethod
    def named(cls, name: NetworkName, *, dropout: float = 0.2) -> Self:
        """Make the network that a recipe names, with random weights."""
        return cls(BACKBONES[name](), dropout=dropout)

    @property
    def cam_bias(self) -> float:
        """The bias that turns the map's mean into the logit."""
        return float(self.bias.detach())

    def reset_head(self) -> None:
        """Draw the last layer anew, for another task on the same features."""
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.bias)

    def forward(self, image_NHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Read uint8 images, as `cxr.preprocess` makes them.

        Returns:
            `logit_N`, raw; `cam_Nhw`, in units of the logit, with `mean(cam) + cam_bias == logit`;
            `novelty_N`, the Euclidean (not squared) length of the whitened features about the training
            set's mean.  All float32.
        """
        feature_NChw = self.forward_features(image_NHW[:, None].to(torch.float32) / 255.0)
        cam_Nhw = self.head(feature_NChw)[:, 0]
        logit_N = cam_Nhw.mean(dim=(1, 2)) + self.bias
        return logit_N, cam_Nhw, self.novelty(feature_NChw.mean(dim=(2, 3)))

    def forward_features(self, image_N1HW: Tensor) -> Tensor:
        """Give the last feature maps `feature_NChw` of float images on a 0..1 grey scale."""
        feature_NChw: Tensor = self.backbone((image_N1HW - GREY_MEAN) / GREY_STD)
        return feature_NChw

    def forward_logit(self, image_N1HW: Tensor) -> Tensor:
        """Give `logit_N` of float images, with dropout on the pooled features while training."""
        pooled_NC11 = self.forward_features(image_N1HW).mean(dim=(2, 3), keepdim=True)
        logit_N111: Tensor = self.head(self.dropout(pooled_NC11))
        return logit_N111.flatten() + self.bias

    def novelty(self, feature_NC: Tensor) -> Tensor:
        """Give the whitened distance `novelty_N` of pooled features from the training images'."""
        whitened_NK = (feature_NC - self.novelty_mean_C) @ self.novelty_whitening_KC.T
        return whitened_NK.square().sum(dim=1).sqrt()

    @torch.no_grad()
    def fit_novelty(self, feature_NC: Tensor) -> None:
        """Fit mean and PCA whitening on the training images' pooled features.

        Fewer images than components leave the remaining rows zero: they add nothing.
        """
        mean_C = feature_NC.mean(dim=0)
        _, singular_K, basis_KC = torch.linalg.svd((feature_NC - mean_C).double(), full_matrices=False)
        count = min(NOVELTY_COMPONENTS, len(feature_NC) - 1)
        std_K = (singular_K[:count].square() / (len(feature_NC) - 1) + _VARIANCE_FLOOR).sqrt()
        self.novelty_mean_C.copy_(mean_C)
        self.novelty_whitening_KC.zero_()
        self.novelty_whitening_KC[:count] = (basis_KC[:count] / std_K[:, None]).float()

    def prepare_for_export(self) -> None:
        """Leave training mode, and swap in the backbone what ONNX does not know."""
        self.eval()
        self.backbone.prepare_for_export()
