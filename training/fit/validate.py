"""Run a network over images without learning: to validate it, and to fit its novelty head."""

import numpy as np
import torch

from training.fit.batches import Samples, plain_batches
from training.model.network import ChestNet
from training.stats.metrics import auroc

_LOOK_BATCH = 16
"""Images that are looked at together without learning: on a CPU more of them cost more, for the
memory that they need."""


@torch.inference_mode()
def validate(network: ChestNet, samples: Samples, size: int) -> float | None:
    """Return the AUROC on plain images at `size`; None if a class is missing."""
    network.eval()
    batches = plain_batches(samples, _LOOK_BATCH, size, network.bias.device)
    logit_N = torch.cat(
        [network.forward_logit(batch.image_N1HW, batch.metadata_NM).cpu() for batch in batches]
    )
    return auroc(samples.label_N, logit_N.numpy().astype(np.float64))


@torch.inference_mode()
def fit_novelty(network: ChestNet, samples: Samples, size: int) -> None:
    """Fit the novelty head: the distribution of the training images in the network's features."""
    network.eval()
    batches = plain_batches(samples, _LOOK_BATCH, size, network.bias.device)
    network.novelty.fit(torch.cat([network.describe(batch.image_N1HW) for batch in batches]))
