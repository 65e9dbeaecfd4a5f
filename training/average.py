"""A running average of a network's weights and buffers: smoother than any one step, and what is kept."""

from copy import deepcopy

import torch

from training.network import ChestNet


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
        for mean, new in zip(self.network.state_dict().values(), network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(new, share)
            else:
                mean.copy_(new)
