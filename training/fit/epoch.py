"""One epoch of training: batches, losses, steps and their learning rate.

Shape suffixes: N images, 1 and C channels, H and W rows and columns, h and w map rows and columns,
F findings.
"""

import math

import numpy as np
import torch
from torch import Tensor

from training.fit import distributed
from training.fit.auxiliary_loss import auxiliary_loss
from training.fit.batches import Batch, Samples, epoch_batches, epoch_length, steps_per_epoch
from training.fit.class_balance import class_weights
from training.fit.losses import mask_loss, weighted_bce
from training.fit.train_state import TrainState
from training.hardware import bf16_instructions
from training.model.auxiliary_head import AuxiliaryHead
from training.model.network import ChestNet
from training.progress import progress_bar
from training.recipe.schema import Recipe

_SHOWN_BATCHES = 20
"""The bar shows the mean loss of so many last batches."""


def train_epoch(state: TrainState, samples: Samples, name: str) -> float:
    """Train one epoch and return its mean loss. It is a pure function of state, seed and epoch.
    Each process takes its part of a batch, and all take the same step.
    """
    recipe, epoch = state.recipe, state.epoch
    # dropout and stochastic depth draw from the global generator, each process for its own images
    torch.manual_seed(state.seed + 1_000_003 * (epoch + 1) + 7_919 * distributed.rank())
    weights = class_weights(samples.label_N, recipe.imbalance)
    steps, losses = steps_per_epoch(epoch_length(samples, recipe), recipe.batch), list[float]()
    state.network.train()
    title = f"{name} epoch {epoch + 1}/{recipe.total_epochs}"
    with progress_bar(
        total=steps, desc=title, unit="batch", disable=not distributed.is_main_process()
    ) as bar:
        for batch in epoch_batches(samples, recipe, epoch, state.seed, state.device):
            mine = batch.part(distributed.shard)
            for group in state.optimizer.param_groups:
                group["lr"] = recipe.lr * rate_at(epoch + len(losses) / steps, recipe)
            loss = batch_loss(state.network, mine, recipe, weights, state.auxiliary_head)
            state.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            distributed.all_reduce_gradients(state.network)
            if state.auxiliary_head is not None:
                distributed.all_reduce_gradients(state.auxiliary_head)
            state.optimizer.step()
            state.average.update(state.network)
            losses.append(distributed.all_reduce_sum(loss))
            bar.set_postfix(loss=f"{np.mean(losses[-_SHOWN_BATCHES:]):.4f}", refresh=False)
            bar.update()
    return float(np.mean(losses))


def batch_loss(
    network: ChestNet,
    batch: Batch,
    recipe: Recipe,
    weights: tuple[float, float],
    auxiliary_head: AuxiliaryHead | None = None,
) -> Tensor:
    """Return the mean loss of a batch: the label's, the map's against the segmentation masks if
    there are any, and that of what is learned beside them.

    In several processes it is the part of this process's images, and the parts add up to the mean.
    """
    with mixed_precision(recipe, network.bias.device):
        feature_NChw = network.forward_features(batch.image_N1HW)
    feature_NChw = feature_NChw.float()  # a sum over a thousand cells needs more than bf16's 8 bits
    logit_N, cam_Nhw = network.read(feature_NChw, batch.metadata_NM)
    loss = weighted_bce(
        logit_N,
        batch.target_N,
        smoothing=recipe.label_smoothing,
        weights=weights,
        weight_N=batch.weight_N,
    )
    if auxiliary_head is not None and batch.auxiliary_NF is not None:
        answer_NF = auxiliary_head(network.dropout(feature_NChw))
        loss = loss + auxiliary_loss(answer_NF, batch.auxiliary_NF, recipe.pretraining)
    if batch.mask_N1HW is None:
        return loss
    known = slice(None) if batch.has_mask_N is None else batch.has_mask_N
    return loss + recipe.mask_weight * mask_loss(cam_Nhw[known], batch.mask_N1HW[known])


def mixed_precision(recipe: Recipe, device: torch.device) -> torch.autocast:
    """Run convolutions in bf16 if the recipe asks for it, or if it leaves the choice and bf16 is
    faster.
    """
    gains = (
        recipe.network.startswith(("densenet", "pyramid")) and bf16_instructions() is not None
    )  # else it is emulated
    faster = device.type == "cuda" or gains
    bf16 = recipe.precision == "bf16" or (recipe.precision == "auto" and faster)
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


def rate_at(epoch: float, recipe: Recipe) -> float:
    """Return the learning rate, as a share of its peak, `epoch` epochs into training: linear
    warm-up, then a cosine to 0.
    """
    if epoch < recipe.warmup_epochs:
        return (epoch + 0.01) / (
            recipe.warmup_epochs + 0.01
        )  # never 0: the first step learns something
    past = (epoch - recipe.warmup_epochs) / max(recipe.total_epochs - recipe.warmup_epochs, 1e-9)
    return 0.5 * (1.0 + math.cos(math.pi * past))
