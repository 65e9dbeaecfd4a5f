"""The device that this process trains on."""

import torch

from training.fit import distributed


def choose_device() -> torch.device:
    """Return the GPU, if there is one; each of several processes takes its own."""
    return (
        torch.device("cuda", distributed.local_rank())
        if torch.cuda.is_available()
        else torch.device("cpu")
    )
