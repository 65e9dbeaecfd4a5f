"""A second head, which learns the auxiliary labels in pretraining; no bundle holds it.

Shape suffixes: N images, C channels, F auxiliary labels, h and w map rows and columns.
"""

import math

import torch
from torch import Tensor, nn

from training.data.auxiliary_labels import FINDINGS, PERSON


class AuxiliaryHead(nn.Module):
    """One more linear layer on the last feature maps, for other findings and for the person."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cells = nn.Conv2d(channels, len(FINDINGS) + len(PERSON), kernel_size=1)
        nn.init.normal_(self.cells.weight, std=0.01)
        assert self.cells.bias is not None
        nn.init.zeros_(self.cells.bias)

    def forward(self, feature_NChw: Tensor) -> Tensor:
        """Return `answer_NF`: findings decided by a few cells, the person by the mean of all."""
        cell_NFhw = self.cells(feature_NChw)
        cells = cell_NFhw.shape[2] * cell_NFhw.shape[3]
        finding_NF = cell_NFhw[:, : len(FINDINGS)].flatten(2).logsumexp(dim=2) - math.log(cells)
        return torch.cat([finding_NF, cell_NFhw[:, len(FINDINGS) :].mean(dim=(2, 3))], dim=1)
