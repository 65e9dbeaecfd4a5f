"""Scales of grey values on which published weights were learned, folded into the first layer.

Every backbone reads `(grey - GREY_MEAN) / GREY_STD` of a 0..1 grey. Weights that learned from
another scale get a first layer that gives the same values from ours, so nothing before the backbone
depends on where its weights came from. Past the picture's edge there is zero on either scale, and
so another grey: 0.48 here, 0.50 in torchxrayvision.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from training.model.network import GREY_MEAN, GREY_STD
from training.model.weight_names import is_of_a_run, names_of_backbone

_FIRST_LAYERS = {
    "features.conv0.weight": "features.norm0.running_mean",
    "conv1.weight": "bn1.running_mean",
    "patch_embed.proj.weight": "patch_embed.proj.bias",
}
"""The first layer's weights, and what takes up a constant that is added to its input: the mean of
the batch norm that follows, or its own bias."""

_XRV_HEADS = ("classifier.weight", "fc.weight", "model.fc.weight")
_XRV_FINDINGS = 18


@dataclass(frozen=True, slots=True)
class GreyScale:
    """What a network reads for a grey value of 0..1: `gain * grey + offset`."""

    gain: float
    offset: float


XRV_SCALE = GreyScale(gain=2048.0, offset=-1024.0)
"""torchxrayvision's (`utils.normalize`): -1024 for black, 1024 for white."""

_EVA_X_MEAN, _EVA_X_STD = 0.49185243, 0.28509309
EVA_X_SCALE = GreyScale(gain=1.0 / _EVA_X_STD, offset=-_EVA_X_MEAN / _EVA_X_STD)
"""EVA-X's (`classification/utils/datasets.py`), the same for three equal channels."""


def scale_of(state: Mapping[str, Tensor]) -> GreyScale | None:
    """Return the scale that a file's weights learned on if it is known to differ from ours.

    torchxrayvision's files are known by one input channel and 18 outputs, EVA-X's by a class token.
    """
    if is_of_a_run(state):
        return None
    if "cls_token" in state:
        return EVA_X_SCALE
    kept = names_of_backbone(state)
    one_channel = any(kept[name].shape[1] == 1 for name in _FIRST_LAYERS if name in kept)
    outputs = {len(state[name]) for name in _XRV_HEADS if name in state}
    return XRV_SCALE if one_channel and outputs == {_XRV_FINDINGS} else None


def fold_scale(fitted: Mapping[str, Tensor], scale: GreyScale) -> dict[str, Tensor]:
    """Return a backbone's weights whose first layer, given our scale, gives what it gave on its
    own.
    """
    name = next(name for name in _FIRST_LAYERS if name in fitted)
    weight = fitted[name]
    constant = (scale.gain * GREY_MEAN + scale.offset) * weight.sum(dim=(1, 2, 3))
    taker = _FIRST_LAYERS[name]
    sign = 1.0 if taker.endswith("bias") else -1.0  # a batch norm subtracts its mean
    return dict(fitted) | {
        name: weight * (scale.gain * GREY_STD),
        taker: fitted[taker] + sign * constant,
    }
