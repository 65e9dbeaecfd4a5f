"""What changes while a model learns: its network, the averages of it, and the optimizer's memory.

All of it goes into one file after each epoch, and comes back from it.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import nn

from training.fit.distributed import share_batch_norms
from training.fit.run_dir import load_network, load_state, save_state
from training.fit.weight_average import EpochMean, WeightAverage
from training.model.auxiliary_head import AuxiliaryHead
from training.model.network import ChestNet
from training.model.pretrained import load_backbone
from training.recipe.schema import Recipe


@dataclass(slots=True)
class TrainState:
    """One model in training; `epoch` counts the finished ones and `seed` is this model's own."""

    recipe: Recipe
    seed: int
    network: ChestNet
    average: WeightAverage
    kept: EpochMean
    """The mean of `average` after each of the recipe's last epochs: the model, in the end."""
    optimizer: torch.optim.Optimizer
    auxiliary_head: AuxiliaryHead | None = None
    """What is learned beside the finding; not kept."""
    epoch: int = 0

    @classmethod
    def start(
        cls,
        recipe: Recipe,
        seed: int,
        device: torch.device,
        *,
        pretrained: Path | None = None,
        with_auxiliary_head: bool = False,
    ) -> Self:
        """Begin from scratch, from another model's features with a new head as the recipe says, or
        from a whole network that was pretrained.
        """
        torch.manual_seed(seed)
        network = (
            _new_network(recipe) if pretrained is None else _pretrained_network(pretrained, recipe)
        )
        network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        share_batch_norms(network)
        auxiliary_head = None
        if with_auxiliary_head:
            auxiliary_head = AuxiliaryHead(network.backbone.channels).to(device)
        learning = nn.ModuleList([network] if auxiliary_head is None else [network, auxiliary_head])
        optimizer = torch.optim.AdamW(
            _parameter_groups(learning, recipe.weight_decay), lr=recipe.lr
        )
        average = WeightAverage(network, recipe.ema)
        kept = EpochMean(average.network)
        return cls(recipe, seed, network, average, kept, optimizer, auxiliary_head)

    @property
    def device(self) -> torch.device:
        """The device that trains."""
        return self.network.bias.device

    def finish_epoch(self) -> None:
        """Count an epoch, and take the average after it into what is kept if it is one of the
        last.
        """
        self.epoch += 1
        if self.epoch > self.recipe.total_epochs - self.recipe.average_last:
            self.kept.add(self.average.network)

    def save(self, path: Path) -> None:
        """Write everything that `resume` needs."""
        head = self.auxiliary_head
        state = {
            "epoch": self.epoch,
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "updates": self.average.updates,
            "kept": self.kept.network.state_dict(),
            "kept_count": self.kept.count,
            "optimizer": self.optimizer.state_dict(),
            "auxiliary_head": None if head is None else head.state_dict(),
        }
        save_state(path, state)

    def resume(self, path: Path) -> None:
        """Load the state that `save` wrote. Without one, stay at the start."""
        state = load_state(path)
        if state is None:
            return
        self.network.load_state_dict(state["network"])
        self.average.network.load_state_dict(state["average"])
        self.average.updates = state["updates"]
        self.kept.network.load_state_dict(state["kept"])
        self.kept.count = state["kept_count"]
        self.optimizer.load_state_dict(state["optimizer"])
        if self.auxiliary_head is not None:
            # "companion" in a run that began before the key had its present name
            key = "auxiliary_head" if "auxiliary_head" in state else "companion"
            self.auxiliary_head.load_state_dict(state[key])
        self.epoch = state["epoch"]


def _new_network(recipe: Recipe) -> ChestNet:
    network = ChestNet.of(recipe)
    if recipe.init_weights is not None:
        load_backbone(network, recipe.network, recipe.init_weights)
    return network


@torch.no_grad()
def _pretrained_network(path: Path, recipe: Recipe) -> ChestNet:
    """Return a pretrained network whose logit 0 means as many positives as negatives, as in the
    batches to come; in those it knows, positives were rarer.
    """
    network, (least, most) = load_network(path, recipe), recipe.doubtful_targets
    positives = recipe.pretraining.positives
    prior = positives * most + (1.0 - positives) * least
    network.bias.sub_(math.log(prior / (1.0 - prior)))
    return network


def _parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Decay matrices and kernels, never norms and biases."""
    decayed = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
