"""The loss of the auxiliary labels: other findings, and the person.

Shape suffixes: N images, F auxiliary labels.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from training.data.auxiliary_labels import FINDINGS
from training.fit.distributed import part_of_mean
from training.recipe.pretraining import Pretraining

_SMOOTHING = 0.06
"""Of findings that were read out of reports, about a tenth of which are wrong."""


def auxiliary_loss(answer_NF: Tensor, auxiliary_NF: Tensor, pretraining: Pretraining) -> Tensor:
    """Return the weighted loss of a batch; what is unknown (NaN) takes no part.

    In several processes it is the part of these images in that of the whole batch.
    """
    findings = len(FINDINGS)
    known_NF = ~auxiliary_NF.isnan()
    target_NF = auxiliary_NF.nan_to_num()
    smooth_NF = target_NF[:, :findings] * (1.0 - _SMOOTHING) + _SMOOTHING / 2
    finding = part_of_mean(
        functional.binary_cross_entropy_with_logits(
            answer_NF[:, :findings], smooth_NF, reduction="none"
        ),
        known_NF[:, :findings],
    )
    person = answer_NF.new_zeros(())
    for place, loss in enumerate(_PERSON_LOSSES, start=findings):
        loss_N = loss(answer_NF[:, place], target_NF[:, place], reduction="none")
        person = person + part_of_mean(loss_N, known_NF[:, place])
    return pretraining.findings_weight * finding + pretraining.person_weight * person


_PERSON_LOSSES: tuple[Callable[..., Tensor], ...] = (
    functional.binary_cross_entropy_with_logits,
    functional.binary_cross_entropy_with_logits,
    functional.smooth_l1_loss,
)
"""Of sex, view and age."""
