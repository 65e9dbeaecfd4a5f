"""The loss: binary cross entropy on smoothed labels, each class with its weight."""

from torch import Tensor
from torch.nn import functional


def weighted_bce(
    logit_N: Tensor,
    target_N: Tensor,
    *,
    smoothing: float,
    weights: tuple[float, float],
    weight_N: Tensor | None = None,
) -> Tensor:
    """Return the mean loss of a batch.

    `target_N` lies in 0..1 and may be a mixture of two labels; smoothing draws
    it towards one half.  `weights` are those of negatives and positives, and
    `weight_N` those of the images.
    """
    smooth_N = target_N * (1.0 - smoothing) + smoothing / 2
    class_weight_N = target_N * weights[1] + (1.0 - target_N) * weights[0]
    both_N = class_weight_N if weight_N is None else class_weight_N * weight_N
    return functional.binary_cross_entropy_with_logits(logit_N, smooth_N, weight=both_N)
