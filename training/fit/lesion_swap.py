"""Let a radiograph with a lesion and one without change places there: lesion, segmentation mask and label move, all else stays.

A few dozen radiographs with a finding share much beside it: drains, bedside views, one detector.  Pasting outlined
objects into other pictures is known to help where few are at hand (Ghiasi et al. 2021, arXiv 2012.07177); here the
place that the lesion leaves is filled from the other radiograph, so that both radiographs have the same seams and neither the
seams nor what surrounds them tells the label.

Shape suffixes: N images, P pairs, 1 channel, H rows, W columns; images and masks are float32 in 0..1.
"""

import torch
from torch import Tensor
from torch.nn import functional

_COARSE = 4
"""Pixels on a side that share one value of the seam; finer would cost more than the rest of a batch's augmentation."""

_MARGIN = 1 / 40
"""Of the side, by which the exchanged place reaches beyond the segmentation mask: a pleural line lies on its border."""


def swap_lesions(
    image_N1HW: Tensor, mask_N1HW: Tensor, target_N: Tensor, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Exchange what lies under the segmentation mask between a share of pairs of a positive and a negative radiograph.

    Every positive radiograph with a segmentation mask is paired with another negative one, as far as these go round.  The
    negative radiograph is mirrored first half of the time, so that a lesion comes to lie on either side.  The batch
    keeps its balance of labels.

    Args:
        image_N1HW: the batch, before it is moved or its greys are bent.
        mask_N1HW: the share of each pixel that is covered; all zero for radiographs without the finding.
        target_N: 0 or 1.
        share: probability that a pair exchanges.
        generator: on the images' device.

    Returns:
        New images, masks and targets, same shapes.
    """
    device = image_N1HW.device
    has_lesion_N = (target_N == 1) & (mask_N1HW.amax(dim=(1, 2, 3)) > 0)
    negative = torch.nonzero(target_N == 0)[:, 0]
    negative = negative[torch.randperm(len(negative), generator=generator, device=device)]
    positive = torch.nonzero(has_lesion_N)[:, 0][: len(negative)]
    chosen = torch.rand(len(positive), generator=generator, device=device) < share
    mirrored = torch.rand(len(positive), generator=generator, device=device) < 0.5
    positive, negative, mirrored = positive[chosen], negative[: len(positive)][chosen], mirrored[chosen]
    image_N1HW, mask_N1HW, target_N = image_N1HW.clone(), mask_N1HW.clone(), target_N.clone()
    if not len(positive):
        return image_N1HW, mask_N1HW, target_N
    with_P1HW, without_P1HW = image_N1HW[positive], image_N1HW[negative]
    without_P1HW = torch.where(mirrored[:, None, None, None], without_P1HW.flip(-1), without_P1HW)
    seam_P1HW = _seam(mask_N1HW[positive])
    brighter_P111 = _mean_along(seam_P1HW, with_P1HW - without_P1HW)
    image_N1HW[positive] = torch.lerp(with_P1HW, (without_P1HW + brighter_P111).clamp(0.0, 1.0), seam_P1HW)
    image_N1HW[negative] = torch.lerp(without_P1HW, (with_P1HW - brighter_P111).clamp(0.0, 1.0), seam_P1HW)
    mask_N1HW[negative], mask_N1HW[positive] = mask_N1HW[positive], torch.zeros_like(mask_N1HW[positive])
    target_N[negative], target_N[positive] = 1.0, 0.0
    return image_N1HW, mask_N1HW, target_N


def _mean_along(seam_P1HW: Tensor, difference_P1HW: Tensor) -> Tensor:
    """Give the mean difference of two radiographs where one passes into the other; what is exchanged is shifted by it."""
    weight_P1HW = seam_P1HW * (1.0 - seam_P1HW)
    total_P111 = weight_P1HW.sum(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
    return (weight_P1HW * difference_P1HW).sum(dim=(1, 2, 3), keepdim=True) / total_P111


def _seam(mask_P1HW: Tensor) -> Tensor:
    """Give how much of each pixel is exchanged: all under the segmentation mask and about it, less and less beyond."""
    height, width = mask_P1HW.shape[-2:]
    coarse = functional.adaptive_max_pool2d(mask_P1HW, (height // _COARSE, width // _COARSE))
    reach = max(1, round(_MARGIN * coarse.shape[-1]))
    window = 2 * reach + 1
    grown = functional.max_pool2d((coarse > 0).float(), 2 * window - 1, stride=1, padding=2 * reach)
    soft = functional.avg_pool2d(grown, window, stride=1, padding=reach, count_include_pad=False)
    return functional.interpolate(soft, size=(height, width), mode="bilinear", align_corners=False)
