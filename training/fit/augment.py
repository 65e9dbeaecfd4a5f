"""Augment training images in batches, on the training device: geometry and grey values.

Strengths are a recipe's (`training.recipe.schema.Augmentation`). They never turn a chest upside
down or cut an apex off.

Shape suffixes: N images, 1 or C channels, H rows, W columns; images are float32 on a 0..1 grey
scale.
"""

import torch
from torch import Tensor
from torch.nn import functional

from training.recipe.schema import Augmentation

_ASPECT_SHARE = 0.25
"""Part of the zoom that is drawn separately for each side."""


def augment(image_N1HW: Tensor, strengths: Augmentation, generator: torch.Generator) -> Tensor:
    """Return a changed copy of a batch, same shape and range; the generator lives on the images'
    device.
    """
    return _change_greys(_move(image_N1HW, strengths, generator), strengths, generator)


def augment_with_masks(
    image_N1HW: Tensor, mask_N1HW: Tensor, strengths: Augmentation, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return changed copies of a batch and of its masks (0..1), which move with their images and
    keep their values.
    """
    moved = _move(torch.cat([image_N1HW, mask_N1HW], dim=1), strengths, generator)
    return _change_greys(moved[:, :1], strengths, generator), moved[:, 1:]


def mix_pairs(image_N1HW: Tensor, target_N: Tensor, share_N: Tensor) -> tuple[Tensor, Tensor]:
    """Mix each image with its neighbour in the batch, and their targets with them (mixup, Zhang et
    al. 2018).
    """
    share_N111 = share_N[:, None, None, None]
    mixed = image_N1HW * share_N111 + image_N1HW.roll(1, dims=0) * (1.0 - share_N111)
    return mixed, target_N * share_N + target_N.roll(1) * (1.0 - share_N)


def _move(image_NCHW: Tensor, strengths: Augmentation, generator: torch.Generator) -> Tensor:
    """Mirror, rotate, zoom and shift by one bilinear resampling; what comes in from outside is
    black.
    """
    count, device = len(image_NCHW), image_NCHW.device
    turn = torch.deg2rad(_uniform(count, strengths.rotate_degrees, generator, device))
    zoom = _uniform(count, strengths.scale, generator, device)
    aspect = _uniform(count, strengths.scale * _ASPECT_SHARE, generator, device)
    shift_N2 = 2.0 * torch.stack(
        [_uniform(count, strengths.shift, generator, device) for _ in range(2)], dim=1
    )
    mirror = (
        1.0
        - 2.0 * (torch.rand(count, generator=generator, device=device) < strengths.mirror).float()
    )
    columns = (
        torch.stack([turn.cos() * mirror, turn.sin() * mirror], dim=1)
        * torch.exp(-zoom - aspect)[:, None]
    )
    rows = torch.stack([-turn.sin(), turn.cos()], dim=1) * torch.exp(-zoom + aspect)[:, None]
    affine_N23 = torch.stack([columns, rows, shift_N2], dim=2)
    grid = functional.affine_grid(affine_N23, list(image_NCHW.shape), align_corners=False)
    return functional.grid_sample(
        image_NCHW, grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )


def _change_greys(
    image_N1HW: Tensor, strengths: Augmentation, generator: torch.Generator
) -> Tensor:
    """Bend, smooth and roughen the grey values, in that order."""
    bent = _bend_greys(image_N1HW, strengths, generator)
    blurred = _blur(bent, strengths.blur, generator)
    return _add_noise(blurred, strengths.noise, generator).clamp_(0.0, 1.0)


def _bend_greys(image_N1HW: Tensor, strengths: Augmentation, generator: torch.Generator) -> Tensor:
    """Apply gamma, then contrast about the image's mean, then brightness."""
    count, device = len(image_N1HW), image_N1HW.device
    gamma, gain, offset = (
        _uniform(count, strength, generator, device)[:, None, None, None]
        for strength in (strengths.gamma, strengths.contrast, strengths.brightness)
    )
    bent = image_N1HW.clamp(1e-4, 1.0) ** gamma.exp()
    mean = bent.mean(dim=(2, 3), keepdim=True)
    return ((bent - mean) * gain.exp() + mean + offset).clamp(0.0, 1.0)


def _blur(image_N1HW: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Smooth some of the images by the binomial kernel [1 2 1] in both directions."""
    chosen = torch.rand(len(image_N1HW), generator=generator, device=image_N1HW.device) < share
    padded = functional.pad(image_N1HW[chosen], (1, 1, 1, 1), mode="replicate")
    tall = (
        padded[..., :-2] + 2.0 * padded[..., 1:-1] + padded[..., 2:]
    ) / 4.0  # slices are much cheaper than a convolution
    blurred = image_N1HW.clone()
    blurred[chosen] = (tall[..., :-2, :] + 2.0 * tall[..., 1:-1, :] + tall[..., 2:, :]) / 4.0
    return blurred


def _add_noise(image_N1HW: Tensor, largest_std: float, generator: torch.Generator) -> Tensor:
    device = image_N1HW.device
    std = largest_std * torch.rand(len(image_N1HW), 1, 1, 1, generator=generator, device=device)
    return image_N1HW + std * torch.randn(image_N1HW.shape, generator=generator, device=device)


def _uniform(count: int, reach: float, generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw `count` numbers in +-reach."""
    return (2.0 * torch.rand(count, generator=generator, device=device) - 1.0) * reach
