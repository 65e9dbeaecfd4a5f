"""Losses of a label, cross entropy with class weights, and of a map against segmentation masks.

Shape suffixes: N images, 1 channel, H and W mask rows and columns, h and w map rows and columns.
"""

from torch import Tensor
from torch.nn import functional

from training.fit.distributed import part_of_mean

EVEN_ODDS = 4.0
"""Map value at which a cell is as likely covered as not.

With an `lse` pool one cell in fifty at this value, the rest far below, adds up to
logit 0: the segmentation masks and the labels then ask the map for one and the same scale.
"""

_COVERED_WEIGHT = 5.0
"""Weight of a covered cell relative to an empty one: lesions cover about 1 % of a positive image's
cells.
"""

_CELLS_SCALE = 10.0
"""Brings the mean cross entropy over cells, nearly all of them empty, to the size of the
label's."""

_OVERLAP_SCALE = 0.5

_OVERLAP_CELLS = 1.0
"""Cells added above and below the fraction, so that an image of few covered cells does not
dominate."""


def weighted_bce(
    logit_N: Tensor,
    target_N: Tensor,
    *,
    smoothing: float,
    weights: tuple[float, float],
    weight_N: Tensor | None = None,
) -> Tensor:
    """Return the mean loss of a batch; in several processes, the part of these images in it.

    `target_N` lies in 0..1 and may be a mixture of two labels; smoothing moves it towards 0.5.
    `weights` are those of negatives and positives, `weight_N` those of the images.
    """
    smooth_N = target_N * (1.0 - smoothing) + smoothing / 2
    class_weight_N = target_N * weights[1] + (1.0 - target_N) * weights[0]
    both_N = class_weight_N if weight_N is None else class_weight_N * weight_N
    loss_N = functional.binary_cross_entropy_with_logits(
        logit_N, smooth_N, weight=both_N, reduction="none"
    )
    return part_of_mean(loss_N)


def mask_loss(cam_Nhw: Tensor, mask_N1HW: Tensor) -> Tensor:
    """Return the mean loss of a batch's maps; in several processes, the part of these maps in it.
    The masks are the share of each pixel that is covered (0..1).

    Every image takes part in the cross entropy. The overlap (Dice, as in Milletari et al. 2016) is
    the mean over the images with a lesion.
    """
    cover_Nhw = functional.adaptive_avg_pool2d(mask_N1HW, (cam_Nhw.shape[1], cam_Nhw.shape[2]))[
        :, 0
    ]
    score_Nhw = cam_Nhw - EVEN_ODDS
    weight_Nhw = 1.0 + (_COVERED_WEIGHT - 1.0) * cover_Nhw
    loss_Nhw = functional.binary_cross_entropy_with_logits(
        score_Nhw, cover_Nhw, weight=weight_Nhw, reduction="none"
    )
    cells = part_of_mean(loss_Nhw)
    return _CELLS_SCALE * cells + _OVERLAP_SCALE * _missed_overlap(score_Nhw.sigmoid(), cover_Nhw)


def _missed_overlap(probability_Nhw: Tensor, cover_Nhw: Tensor) -> Tensor:
    """Return 1 - Dice, the mean over the images with a lesion; 0 if there is none."""
    shared_N = (probability_Nhw * cover_Nhw).sum(dim=(1, 2))
    both_N = (probability_Nhw + cover_Nhw).sum(dim=(1, 2))
    missed_N = 1.0 - (2.0 * shared_N + _OVERLAP_CELLS) / (both_N + _OVERLAP_CELLS)
    return part_of_mean(missed_N, cover_Nhw.amax(dim=(1, 2)) > 0)
