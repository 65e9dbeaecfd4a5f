"""The device and the cores that this process may use."""

import os

import torch

from training.fit import distributed


def choose_device() -> torch.device:
    """Return the GPU, if there is one; each of several processes takes its own."""
    return (
        torch.device("cuda", distributed.local_rank())
        if torch.cuda.is_available()
        else torch.device("cpu")
    )


def available_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
