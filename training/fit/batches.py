"""From the cache to batches: order, resizing, augmentation and mixing of one epoch.

An epoch is a pure function of (seed, model, epoch), so a resumed training sees the same batches.

Shape suffixes: N images, 1 channel, H rows, W columns, M metadata columns.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.data.auxiliary_labels import encode_auxiliary_labels
from training.data.cache import map_cache
from training.data.index import IndexRow
from training.data.masks import map_masks
from training.fit.augment import augment, augment_with_masks, mix_pairs
from training.fit.class_balance import companion_count, companion_order, epoch_order
from training.fit.late_fusion import encode, forget_some
from training.fit.run_dir import Run
from training.recipe.schema import Recipe

Kind = TypeVar("Kind", bound=np.generic)


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
    """As `training.fit.late_fusion.encode` gives it; None if images alone are learned from."""
    target_N: NDArray[np.float32] | None = None
    """How likely the finding is; None if the labels are without doubt."""
    weight_N: NDArray[np.float32] | None = None
    """Of each image in the loss; None for 1."""
    has_mask_N: NDArray[np.bool_] | None = None
    """Whether the mask is known; None if all are."""
    measured_N: NDArray[np.bool_] | None = None
    """Whether figures are computed from the image; None if from all."""
    auxiliary_NF: NDArray[np.float32] | None = None
    """What is learned beside the finding, as `training.data.auxiliary_labels` encodes it."""

    def __len__(self) -> int:
        return len(self.label_N)

    def take(self, position_N: NDArray[np.int64]) -> "Samples":
        """Return some of them, read into memory."""
        return Samples(
            np.ascontiguousarray(self.image_NHW[position_N]),
            self.label_N[position_N],
            _part(self.mask_NHW, position_N),
            _part(self.metadata_NM, position_N),
            target_N=_part(self.target_N, position_N),
            weight_N=_part(self.weight_N, position_N),
            has_mask_N=_part(self.has_mask_N, position_N),
            measured_N=_part(self.measured_N, position_N),
            auxiliary_NF=_part(self.auxiliary_NF, position_N),
        )


def _part(values: NDArray[Kind] | None, position_N: NDArray[np.int64]) -> NDArray[Kind] | None:
    return None if values is None else np.ascontiguousarray(values[position_N])


class Batch(NamedTuple):
    """What one step reads, on its device: images and masks float32 in 0..1, targets in 0..1."""

    image_N1HW: Tensor
    target_N: Tensor
    mask_N1HW: Tensor | None = None
    metadata_NM: Tensor | None = None
    weight_N: Tensor | None = None
    has_mask_N: Tensor | None = None
    auxiliary_NF: Tensor | None = None

    def part(self, take: Callable[[Tensor], Tensor]) -> "Batch":
        """Return the part of the batch that `take` takes of each tensor."""
        further = (None if tensor is None else take(tensor) for tensor in self[2:])
        return Batch(take(self.image_N1HW), take(self.target_N), *further)


def open_samples(run: Run) -> Samples:
    """Map all training samples of a run directory, in the order of its index. Masks and metadata
    are included if the recipe asks for them.
    """
    masks = (
        map_masks(run.path / "cache", len(run.index), run.recipe.size)
        if run.recipe.mask_weight
        else None
    )
    rows, recipe = run.index.rows, run.recipe
    return Samples(
        open_cache(run),
        run.index.label_N,
        masks,
        encode(rows) if recipe.metadata else None,
        target_N=np.array([_target(row, recipe) for row in rows], dtype=np.float32),
        weight_N=np.array([row.weight for row in rows], dtype=np.float32),
        has_mask_N=None if masks is None else run.has_mask_N,
        measured_N=run.measured_N,
        auxiliary_NF=encode_auxiliary_labels(rows, recipe.finding)
        if recipe.pretraining.epochs
        else None,
    )


def _target(row: IndexRow, recipe: Recipe) -> float:
    """Return how likely the finding is: as a table says, or by how far its label can be trusted."""
    if row.target is not None:
        return row.target
    return recipe.doubtful_targets[row.label] if row.is_doubtful else float(row.label)


def open_cache(run: Run) -> NDArray[np.uint8]:
    """Map the decoded images of a run directory as `image_NHW`, in the order of its index."""
    return map_cache(run.path / "cache", len(run.index), run.recipe.size)


def epoch_length(samples: Samples, recipe: Recipe) -> int:
    """Return how many images an epoch visits: as many as there are, or as its companions allow."""
    if not recipe.companions or samples.measured_N is None:
        return len(samples)
    own = int(samples.measured_N.sum())
    return own + companion_count(own, recipe)


def steps_per_epoch(count: int, batch: int) -> int:
    """Return how many batches an epoch has; the batches are of near-equal size."""
    return max(1, round(count / batch))


def epoch_batches(
    samples: Samples, recipe: Recipe, epoch: int, seed: int, device: torch.device
) -> Iterator[Batch]:
    """Return the augmented batches of an epoch, masks moved with their images."""
    rng = np.random.default_rng([seed, epoch])
    generator = torch.Generator(device).manual_seed(int(rng.integers(2**63)))
    order = _order(samples, recipe, rng)
    mixing = recipe.augment.mixup > 0 and epoch < recipe.augment.mixup_until * recipe.total_epochs
    for chosen in np.array_split(order, steps_per_epoch(len(order), recipe.batch)):
        image, mask = to_float(samples.image_NHW[chosen], recipe.size_of_epoch(epoch), device), None
        targets_N = samples.label_N if samples.target_N is None else samples.target_N
        target = torch.from_numpy(targets_N[chosen]).to(device, torch.float32)
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
        yield Batch(
            image.contiguous(memory_format=torch.channels_last),
            target,
            mask,
            metadata,
            *(
                None if values is None else torch.from_numpy(values[chosen]).to(device)
                for values in (samples.weight_N, samples.has_mask_N, samples.auxiliary_NF)
            ),
        )


def _order(samples: Samples, recipe: Recipe, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the order in which an epoch visits images, by position."""
    if recipe.companions and samples.measured_N is not None:
        return companion_order(samples.label_N, samples.measured_N, recipe, rng)
    return epoch_order(samples.label_N, recipe.imbalance, rng, recipe.positives)


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
