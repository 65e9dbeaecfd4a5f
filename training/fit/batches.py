"""From the cache to batches: order, resizing, augmentation and mixing of one epoch.

An epoch is a pure function of (seed, model, epoch), so a resumed training sees the same batches.

Shape suffixes: N images, 1 channel, H rows, W columns, M metadata columns.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.data.cache import map_cache
from training.data.masks import map_masks
from training.fit.augment import augment, augment_with_masks, mix_pairs
from training.fit.balance import epoch_order
from training.fit.late_fusion import encode, forget_some
from training.fit.run_dir import Run
from training.recipe.schema import Recipe


@dataclass(frozen=True, slots=True)
class Samples:
    """The images that one model learns from or is tried on; images and masks are uint8 and may be
    mapped.
    """

    image_NHW: NDArray[np.uint8]
    label_N: NDArray[np.int64]
    mask_NHW: NDArray[np.uint8] | None = None
    """255 if the finding covers all of a pixel; None without masks."""
    metadata_NM: NDArray[np.float32] | None = None
    """From `training.fit.late_fusion.encode`; None if the recipe has no metadata."""

    def __len__(self) -> int:
        return len(self.label_N)

    def take(self, position_N: NDArray[np.int64]) -> "Samples":
        """Return some of them, read into memory."""
        masks = None if self.mask_NHW is None else np.ascontiguousarray(self.mask_NHW[position_N])
        metadata = None if self.metadata_NM is None else self.metadata_NM[position_N]
        return Samples(
            np.ascontiguousarray(self.image_NHW[position_N]),
            self.label_N[position_N],
            masks,
            metadata,
        )


class Batch(NamedTuple):
    """What one step reads, on its device: images and masks float32 in 0..1, targets in 0..1."""

    image_N1HW: Tensor
    target_N: Tensor
    mask_N1HW: Tensor | None = None
    metadata_NM: Tensor | None = None

    def part(self, take: Callable[[Tensor], Tensor]) -> "Batch":
        """Return the part of the batch that `take` takes of each tensor."""
        mask = None if self.mask_N1HW is None else take(self.mask_N1HW)
        metadata = None if self.metadata_NM is None else take(self.metadata_NM)
        return Batch(take(self.image_N1HW), take(self.target_N), mask, metadata)


def open_samples(run: Run) -> Samples:
    """Map all training samples of a run directory, in the order of its index. Masks and metadata
    are included if the recipe asks for them.
    """
    masks = (
        map_masks(run.path / "cache", len(run.index), run.recipe.size)
        if run.recipe.mask_weight
        else None
    )
    metadata = encode(run.index.rows) if run.recipe.metadata else None
    return Samples(open_cache(run), run.index.label_N, masks, metadata)


def open_cache(run: Run) -> NDArray[np.uint8]:
    """Map the decoded images of a run directory as `image_NHW`, in the order of its index."""
    return map_cache(run.path / "cache", len(run.index), run.recipe.size)


def steps_per_epoch(count: int, batch: int) -> int:
    """Return how many batches an epoch has; the batches are of near-equal size."""
    return max(1, round(count / batch))


def epoch_batches(
    samples: Samples, recipe: Recipe, epoch: int, seed: int, device: torch.device
) -> Iterator[Batch]:
    """Return the augmented batches of an epoch, masks moved with their images."""
    rng = np.random.default_rng([seed, epoch])
    generator = torch.Generator(device).manual_seed(int(rng.integers(2**63)))
    order = epoch_order(samples.label_N, recipe.imbalance, rng)
    mixing = recipe.augment.mixup > 0 and epoch < recipe.augment.mixup_until * recipe.total_epochs
    for chosen in np.array_split(order, steps_per_epoch(len(order), recipe.batch)):
        image, mask = to_float(samples.image_NHW[chosen], recipe.size_of_epoch(epoch), device), None
        target = torch.from_numpy(samples.label_N[chosen]).to(device, torch.float32)
        if samples.mask_NHW is None:
            image = augment(image, recipe.augment, generator)
        else:
            mask = to_float(samples.mask_NHW[chosen], recipe.size_of_epoch(epoch), device)
            image, mask = augment_with_masks(image, mask, recipe.augment, generator)
        if mixing:
            share = torch.from_numpy(
                rng.beta(recipe.augment.mixup, recipe.augment.mixup, len(chosen))
            )
            image, target = mix_pairs(image, target, share.to(device, torch.float32))
        metadata = None
        if samples.metadata_NM is not None:
            metadata = torch.from_numpy(forget_some(samples.metadata_NM[chosen], rng)).to(device)
        yield Batch(image.contiguous(memory_format=torch.channels_last), target, mask, metadata)


def plain_batches(samples: Samples, batch: int, size: int, device: torch.device) -> Iterator[Batch]:
    """Yield all images in order, changed in size only, with their metadata features and without
    masks.
    """
    for start in range(0, len(samples), batch):
        part = slice(start, start + batch)
        image = to_float(samples.image_NHW[part], size, device).contiguous(
            memory_format=torch.channels_last
        )
        target = torch.from_numpy(samples.label_N[part]).to(device, torch.float32)
        metadata = (
            None
            if samples.metadata_NM is None
            else torch.from_numpy(samples.metadata_NM[part]).to(device)
        )
        yield Batch(image, target, metadata_NM=metadata)


def to_float(image_NHW: NDArray[np.uint8], size: int, device: torch.device) -> Tensor:
    """Bring uint8 images to the device as `image_N1HW` float32 in 0..1, averaged down to `size`."""
    image = torch.from_numpy(np.array(image_NHW)).to(device)[:, None].float() / 255.0
    return (
        image
        if image.shape[-1] == size
        else functional.interpolate(image, size=(size, size), mode="area")
    )
