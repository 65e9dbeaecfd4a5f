"""One training in several processes, as torchrun starts them, each on its GPU or on its share of
the cores.

    torchrun --standalone --nproc-per-node 4 -m training train RECIPE --data DIR --out RUN

Every process draws the whole batch and keeps its part: order, augmentation and mixing are pure
functions of seed and epoch. Gradients, batch-norm statistics and what each loss is a mean over are
summed over the processes. So the steps equal those of one process, except for rounding and dropout.
Only the first process writes files.

Shape suffixes: N images, C channels, H rows, W columns.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from training.recipe.schema import RecipeError

_PATIENCE = timedelta(hours=2)
"""The other processes wait while the first decodes a data set or validates a model."""


@contextmanager
def process_group() -> Iterator[None]:
    """Join the process group if torchrun started this process, and leave it at the end."""
    if not dist.is_torchelastic_launched():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank())
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def local_rank() -> int:
    """Return the number of this process on its machine, from 0: also that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world_size() -> int:
    """Count the processes on this machine, which share its cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def rank() -> int:
    """Return the number of this process among all, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Count the processes of this training."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main_process() -> bool:
    """Return whether this is the process that writes files."""
    return rank() == 0


def barrier() -> None:
    """Go on when every process has come here."""
    if world_size() > 1:
        dist.barrier()


@contextmanager
def main_process_first() -> Iterator[None]:
    """Let the first process through a block, and the others after it."""
    if not is_main_process():
        barrier()
    yield
    if is_main_process():
        barrier()


def refuse_empty_shards(batch: int, processes: int) -> None:
    """Raise `RecipeError` if a batch of about that many images could leave a process without
    any.
    """
    if batch < 2 * processes:
        raise RecipeError(
            f"batch={batch} is too small for {processes} processes, it must be at least "
            f"{2 * processes}"
        )


def shard(batch: Tensor) -> Tensor:
    """Return this process's part of a batch; the parts are of near-equal size."""
    return batch.tensor_split(world_size())[rank()]


def all_reduce_sum(number: Tensor) -> float:
    """Add up a scalar over all processes."""
    total = number.detach().clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return float(total)


def part_of_mean(value: Tensor, known: Tensor | None = None) -> Tensor:
    """Return what this process's values add to the mean over those of all processes.

    Only the known values count; 0 if no process has one. Every process must call it.
    """
    if known is None:
        known = torch.ones_like(value, dtype=torch.bool)
    count = known.sum()
    if world_size() > 1:
        dist.all_reduce(count)
    return torch.where(known, value, 0.0).sum() / count.clamp_min(1)


def all_reduce_gradients(network: nn.Module) -> None:
    """Add up the gradients of all processes, in one message."""
    if world_size() == 1:
        return
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    totals = torch.split(flat, [gradient.numel() for gradient in gradients])
    for gradient, total in zip(gradients, totals, strict=True):
        gradient.copy_(total.view(gradient.shape))


def share_batch_norms(network: nn.Module) -> None:
    """Make a network's batch norms use the statistics of all processes. Its state does not
    change.
    """
    for module in network.modules():
        if world_size() > 1 and type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the parts of all processes; torch's own has no CPU version, and one for both
    is one to test.
    """

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Normalise by the mean and variance of the whole batch."""
        if not self.training:
            return super().forward(x_NCHW)
        x = x_NCHW.float()
        total_C, pixels = _sum_over_all(x, x.shape[1])
        mean_C = total_C / pixels
        centered = x - mean_C[:, None, None]
        variance_C = _sum_over_all(centered.square(), x.shape[1])[0] / pixels
        self._note(mean_C.detach(), variance_C.detach() * pixels / (pixels - 1))
        scale_C = torch.rsqrt(variance_C + self.eps) * self.weight
        return (centered * scale_C[:, None, None] + self.bias[:, None, None]).to(x_NCHW.dtype)

    def _note(self, mean_C: Tensor, variance_C: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean_C, self.momentum)
        self.running_var.lerp_(variance_C, self.momentum)
        self.num_batches_tracked += 1


def _sum_over_all(x_NCHW: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Add up each channel over the images and pixels of all processes, and count these; gradients
    flow back to all.
    """
    pixels = torch.full((1,), x_NCHW.numel() / channels, device=x_NCHW.device)
    summed: Tensor = _SumOverAll.apply(torch.cat([x_NCHW.sum(dim=(0, 2, 3)), pixels]))  # type: ignore[no-untyped-call]
    return summed[:channels], summed[channels:].detach()


class _SumOverAll(torch.autograd.Function):
    """What enters every process's sum gets the gradient of every process's sum."""

    @staticmethod
    def forward(_: FunctionCtx, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: FunctionCtx, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total
