"""Find the place of each tensor of a file of weights in a backbone.

    names of a run directory, MONAI, torchvision, torchxrayvision or EVA-X -> the backbone's own

Three input channels become one by their sum, which is exact for a grey image with three equal
channels. MONAI's own loading silently skips a layer of another shape, and so the first one.

Torchvision's EfficientNets pad strided convolutions differently from MONAI's by half a pixel, and
B0 to B4 have a smaller batch-norm epsilon. Their weights are a start for training, not an identical
network.
"""

import re
from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from training.errors import TrainingError

_NOT_OF_THE_BACKBONE = (
    "_fc.", "class_layers.", "classifier.", "fc.", "head.",  # layers after it
    "op_threshs",  # torchxrayvision's thresholds
    "mask_token", "lm_head.", "rope.",  # EVA-X's first training, and angles that are computed here
)  # fmt: skip
"""How names begin that are left out."""

_BACKBONE = "backbone."
"""How a run directory's layers before the head begin."""

_LAST_STEP = ("_conv_head.", "_bn1.")
"""MONAI's names of what EfficientNets do after their last block."""

_LISTED = 8
"""An error lists so many names of each kind."""


class WeightsError(TrainingError):
    """Weights to start from can't be read or do not fit; the message lists what did not match."""


def fit_state(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` with the names and shapes of a backbone's state dict. Names may be a run
    directory's, MONAI's, torchvision's, torchxrayvision's or EVA-X's; batch-norm counters may be
    missing. Raise `WeightsError`
    with the tensors that are missing, left over, or of another shape.
    """
    given = names_of_backbone(state)
    ends_before = "_conv_stem.weight" in wanted and not any(
        name.startswith(_LAST_STEP) for name in wanted
    )
    if ends_before:  # an EfficientNet's levels, without what comes after its last block
        given = {key: tensor for key, tensor in given.items() if not key.startswith(_LAST_STEP)}
    names = max((naming(wanted) for naming in _NAMINGS), key=lambda names: _found(names, given))
    fitted = {
        ours: _one_channel(given[theirs], wanted[ours])
        for ours, theirs in names.items()
        if theirs in given
    }
    missing = [
        theirs
        for ours, theirs in names.items()
        if ours not in fitted and wanted[ours].is_floating_point()
    ]
    misshapen = [
        names[ours] for ours, tensor in fitted.items() if tensor.shape != wanted[ours].shape
    ]
    left_over = sorted(set(given) - set(names.values()))
    faults = {"missing": missing, "of another shape": misshapen, "left over": left_over}
    told = [
        f"{len(keys)} {fault}: {', '.join(keys[:_LISTED])}"
        for fault, keys in faults.items()
        if keys
    ]
    if told:
        raise WeightsError("the weights do not fit the network; " + "; ".join(told))
    return fitted


def is_of_a_run(state: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict comes from a run directory."""
    return any(key.startswith(_BACKBONE) for key in state)


def names_of_backbone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keep the backbone's tensors, under one spelling if a file may have several."""
    if is_of_a_run(state):
        # "backbone." occurs twice if the network has an intensity normalisation
        return {
            re.sub(r"^(backbone\.)+", "", key): tensor
            for key, tensor in state.items()
            if key.startswith(_BACKBONE)
        }
    spelled = {_one_spelling(key): tensor for key, tensor in state.items()}
    return {
        key: tensor
        for key, tensor in spelled.items()
        if not key.startswith(_NOT_OF_THE_BACKBONE) and ".rope." not in key
    }


def _one_spelling(key: str) -> str:
    """Return the newer of torchvision's two spellings (`norm.1` became `norm1`), a ResNet of
    torchxrayvision without its wrapper, and EVA-X's own spelling for timm's.
    """
    key = re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", key)
    key = re.sub(r"^model\.", "", key)
    key = re.sub(r"^fc_norm\.", "norm.", key)
    return key.replace(".mlp.fc1.", ".mlp.w12.").replace(".mlp.fc2.", ".mlp.w3.")


def _found(names: Mapping[str, str], given: Mapping[str, Tensor]) -> int:
    return sum(theirs in given for theirs in names.values())


def _one_channel(theirs: Tensor, ours: Tensor) -> Tensor:
    """Sum the three input channels of a first layer if ours has one."""
    first_layer = ours.ndim == theirs.ndim == 4 and (ours.shape[1], theirs.shape[1]) == (1, 3)
    return theirs.sum(dim=1, keepdim=True) if first_layer else theirs


def _own_names(names: Iterable[str]) -> dict[str, str]:
    """MONAI's layers are called so by themselves, and so a run directory's."""
    return {name: name for name in names}


def _names_without_stages(names: Iterable[str]) -> dict[str, str]:
    """Name EfficientNets' layers as in the files that MONAI fetches, whose blocks are counted
    through.
    """
    return {name: re.sub(r"^_blocks\.\d+\.", "_blocks.", name) for name in names}


def _torchvision_names(names: Iterable[str]) -> dict[str, str]:
    """Name a backbone's layers as torchvision does, which counts blocks anew in each stage."""
    first_block: dict[str, int] = {}
    theirs = {}
    for name in names:
        block = re.fullmatch(r"_blocks\.(\d+)\.(\d+)\.(_\w+)\.(\w+)", name)
        if block is not None:
            stage, number, layer, kind = block.groups()
            place = int(number) - first_block.setdefault(stage, int(number))
            part, rest = _PARTS[layer]
            part -= stage == "0"  # whose block has nothing to expand
            theirs[name] = f"features.{int(stage) + 1}.{place}.block.{part}.{rest}.{kind}"
        elif name.startswith("_"):
            layer, kind = name.split(".")
            theirs[name] = f"features.{_ENDS[layer]}.{kind}"
        else:
            theirs[name] = name.replace(".layers.", ".")  # a DenseNet's
    return theirs


_ENDS = {"_conv_stem": "0.0", "_bn0": "0.1", "_conv_head": "8.0", "_bn1": "8.1"}
_PARTS = {
    "_expand_conv": (0, "0"),
    "_bn0": (0, "1"),
    "_depthwise_conv": (1, "0"),
    "_bn1": (1, "1"),
    "_se_reduce": (2, "fc1"),
    "_se_expand": (2, "fc2"),
    "_project_conv": (3, "0"),
    "_bn2": (3, "1"),
}
_NAMINGS: tuple[Callable[[Iterable[str]], dict[str, str]], ...] = (
    _own_names,
    _torchvision_names,
    _names_without_stages,
)
