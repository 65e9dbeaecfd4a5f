"""The loss of a map against the segmentation masks that experts drew: cross entropy by cell, and
overlap by image.

Shape suffixes: N images, P positive ones, 1 channel, H and W mask rows and columns, h and w map
rows and columns.
"""

from torch import Tensor
from torch.nn import functional

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


def mask_loss(cam_Nhw: Tensor, mask_N1HW: Tensor) -> Tensor:
    """Return the mean loss of a batch's maps; the masks are the share of each pixel that is covered
    (0..1).

        Every image takes part in the cross entropy, an empty one by staying empty;
        overlap (Dice, as in Milletari et al. 2016) is asked of images with a lesion, and
    averaged over those.
    """
    cover_Nhw = functional.adaptive_avg_pool2d(mask_N1HW, (cam_Nhw.shape[1], cam_Nhw.shape[2]))[
        :, 0
    ]
    score_Nhw = cam_Nhw - EVEN_ODDS
    weight_Nhw = 1.0 + (_COVERED_WEIGHT - 1.0) * cover_Nhw
    cells = functional.binary_cross_entropy_with_logits(score_Nhw, cover_Nhw, weight=weight_Nhw)
    return _CELLS_SCALE * cells + _OVERLAP_SCALE * _missed_overlap(score_Nhw.sigmoid(), cover_Nhw)


def _missed_overlap(probability_Nhw: Tensor, cover_Nhw: Tensor) -> Tensor:
    """Return 1 - Dice, the mean over the images with a lesion; 0 if there is none."""
    chosen_N = cover_Nhw.amax(dim=(1, 2)) > 0
    probability_Phw, cover_Phw = probability_Nhw[chosen_N], cover_Nhw[chosen_N]
    if not len(cover_Phw):
        return probability_Nhw.new_zeros(())
    shared_P = (probability_Phw * cover_Phw).sum(dim=(1, 2))
    both_P = (probability_Phw + cover_Phw).sum(dim=(1, 2))
    return (1.0 - (2.0 * shared_P + _OVERLAP_CELLS) / (both_P + _OVERLAP_CELLS)).mean()
