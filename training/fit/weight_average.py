"""Averages of a network's weights and buffers, smoother than any one step.

`WeightAverage` runs along with the steps of a training; `EpochMean` is the plain mean of
what it was after each of the last epochs, and what is kept.

torch's `AveragedModel` takes the first network whole. Here the average begins at the initial
weights, so that its decay warms up; with the other start the same recipe gives other weights.
"""

from copy import deepcopy

import torch

from training.model.network import ChestNet


class WeightAverage:
    """Exponential moving average; `decay` warms up, so that the first steps are soon forgotten."""

    def __init__(self, network: ChestNet, decay: float) -> None:
        self.network = deepcopy(network).eval().requires_grad_(requires_grad=False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: ChestNet) -> None:
        """Take a step towards `network`; counters are copied."""
        share = 1.0 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        _move(self.network, network, share)


class EpochMean:
    """Mean of the networks that were added (Izmailov et al. 2018, over running averages)."""

    def __init__(self, network: ChestNet) -> None:
        self.network = deepcopy(network)
        self.count = 0

    @torch.no_grad()
    def add(self, network: ChestNet) -> None:
        """Take another network into the mean; counters are copied."""
        self.count += 1
        _move(self.network, network, 1.0 / self.count)


def _move(mean: ChestNet, towards: ChestNet, share: float) -> None:
    for tensor, new in zip(mean.state_dict().values(), towards.state_dict().values(), strict=True):
        if tensor.is_floating_point():
            tensor.lerp_(new, share)
        else:
            tensor.copy_(new)
