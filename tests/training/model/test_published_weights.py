"""Weights of torchxrayvision and EVA-X: made tensors with their names and shapes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.training.model.test_pretrained import norm, torchvision_densenet
from training.model.backbones import BACKBONES, DenseNetBackbone, ResNet50Backbone
from training.model.eva_x import EvaXBackbone, rotary_positions
from training.model.network import GREY_MEAN, GREY_STD, ChestNet
from training.model.pretrained import load_backbone
from training.model.weight_names import WeightsError, fit_state
from training.model.weight_scales import EVA_X_SCALE, XRV_SCALE, scale_of
from training.recipe.schema import NetworkName

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def torchvision_resnet50(channels: int, outputs: int) -> Shapes:
    """Names and shapes as torchvision.models.resnet50 builds them."""
    yield "conv1.weight", (64, channels, 7, 7)
    yield from norm("bn1", 64)
    into = 64
    for layer, (inner, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], start=1):
        for block in range(blocks):
            name = f"layer{layer}.{block}"
            yield f"{name}.conv1.weight", (inner, into, 1, 1)
            yield from norm(f"{name}.bn1", inner)
            yield f"{name}.conv2.weight", (inner, inner, 3, 3)
            yield from norm(f"{name}.bn2", inner)
            yield f"{name}.conv3.weight", (4 * inner, inner, 1, 1)
            yield from norm(f"{name}.bn3", 4 * inner)
            if block == 0:
                yield f"{name}.downsample.0.weight", (4 * inner, into, 1, 1)
                yield from norm(f"{name}.downsample.1", 4 * inner)
            into = 4 * inner
    yield from (("fc.weight", (outputs, 2048)), ("fc.bias", (outputs,)))


def xrv_densenet() -> Shapes:
    """Names and shapes of torchxrayvision.models.DenseNet: one channel, 18 findings, thresholds."""
    for name, shape in torchvision_densenet(64, 32, (6, 12, 24, 16)):
        if name.startswith("classifier"):
            yield name, (18, *shape[1:])
        else:
            yield name, (64, 1, 7, 7) if name == "features.conv0.weight" else shape
    yield "op_threshs", (18,)


def xrv_resnet() -> Shapes:
    """Names and shapes of torchxrayvision.models.ResNet, which wraps torchvision's."""
    for name, shape in torchvision_resnet50(1, 18):
        yield f"model.{name}", shape
    yield "op_threshs", (18,)


def eva_x(first: str = "w12", last: str = "w3", final: str = "norm") -> Shapes:
    """Names and shapes of EVA-X-Ti after its first training, or as timm or a fine-tuning calls
    them.
    """
    yield from (("cls_token", (1, 1, 192)), ("pos_embed", (1, 197, 192)))
    yield from (
        ("patch_embed.proj.weight", (192, 3, 16, 16)),
        ("patch_embed.proj.bias", (192,)),
    )
    yield from (("mask_token", (1, 1, 192)), ("rope.freqs_cos", (196, 64)))
    for block in range(12):
        name = f"blocks.{block}"
        for part in ("norm1", "norm2"):
            yield from ((f"{name}.{part}.weight", (192,)), (f"{name}.{part}.bias", (192,)))
        yield f"{name}.attn.qkv.weight", (576, 192)
        yield from ((f"{name}.attn.{bias}_bias", (192,)) for bias in "qv")
        yield from (
            (f"{name}.attn.proj.weight", (192, 192)),
            (f"{name}.attn.proj.bias", (192,)),
            (f"{name}.attn.rope.freqs_sin", (196, 64)),
            (f"{name}.mlp.{first}.weight", (1024, 192)),
            (f"{name}.mlp.{first}.bias", (1024,)),
            (f"{name}.mlp.{last}.weight", (192, 512)),
            (f"{name}.mlp.{last}.bias", (192,)),
        )
    yield from ((f"{final}.weight", (192,)), (f"{final}.bias", (192,)))
    yield from (("lm_head.weight", (1024, 192)), ("lm_head.bias", (1024,)))


def made(shapes: Shapes) -> dict[str, Tensor]:
    """Make a state dict; variances are above zero."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.rand(shape, generator=generator) * 0.1 + 0.5
        if name.endswith("running_var")
        else torch.randn(shape, generator=generator) * 0.05
        for name, shape in shapes
    }


def started(name: NetworkName, path: Path, state: object) -> ChestNet:
    """Return a network that starts from a file."""
    torch.save(state, path)
    network = ChestNet.named(name)
    load_backbone(network, name, str(path))
    return network.eval()


def grey() -> Tensor:
    """Return noise on a 0..1 grey scale."""
    return torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(2))


def ours(grey_N1HW: Tensor) -> Tensor:
    """Return what a backbone reads for it."""
    return (grey_N1HW - GREY_MEAN) / GREY_STD


@pytest.mark.parametrize(
    ("name", "shapes", "left_out"),
    [
        ("densenet-121", xrv_densenet, 3),
        ("resnet-50", xrv_resnet, 3),
        ("eva-x-tiny", eva_x, 16),
    ],
)
def test_every_published_tensor_finds_its_place(
    name: NetworkName, shapes: Callable[[], Shapes], left_out: int
) -> None:
    state = {
        key: torch.tensor(float(number)).expand(shape)
        for number, (key, shape) in enumerate(shapes(), start=1000)
    }
    wanted = BACKBONES[name]().state_dict()

    fitted = fit_state(state, wanted)

    assert {key: tensor.shape for key, tensor in fitted.items()} == {
        key: tensor.shape for key, tensor in wanted.items()
    }
    numbers = {float(tensor.flatten()[0]) for tensor in fitted.values()}
    assert len(numbers) == len(fitted) == len(state) - left_out


def test_a_file_is_known_by_what_only_its_kind_has() -> None:
    assert scale_of(made(xrv_densenet())) == XRV_SCALE
    assert scale_of(made(xrv_resnet())) == XRV_SCALE
    assert scale_of(made(torchvision_resnet50(1, 18))) == XRV_SCALE  # the file itself, unwrapped
    assert scale_of(made(eva_x())) == EVA_X_SCALE
    assert scale_of(made(torchvision_resnet50(3, 1000))) is None
    assert scale_of(ChestNet.named("eva-x-tiny").state_dict()) is None


def test_the_first_layers_of_torchxrayvision_give_what_they_gave_on_its_own_scale(
    tmp_path: Path,
) -> None:
    dense, residual = made(xrv_densenet()), made(xrv_resnet())
    begun_dense = started("densenet-121", tmp_path / "dense.pth", dense).backbone
    begun_residual = started("resnet-50", tmp_path / "residual.pt", residual).backbone
    assert isinstance(begun_dense, DenseNetBackbone)
    assert isinstance(begun_residual, ResNet50Backbone)
    own_scale = (2 * grey() - 1) * 1024

    for state, prefix, first, ours_first in (
        (dense, "features.", ("conv0", "norm0"), begun_dense.features[:2]),
        (
            residual,
            "model.",
            ("conv1", "bn1"),
            torch.nn.Sequential(begun_residual.conv1, begun_residual.bn1),
        ),
    ):
        convolution, statistics = (prefix + name for name in first)
        theirs = functional.batch_norm(
            functional.conv2d(own_scale, state[f"{convolution}.weight"], stride=2, padding=3),
            state[f"{statistics}.running_mean"],
            state[f"{statistics}.running_var"],
            state[f"{statistics}.weight"],
            state[f"{statistics}.bias"],
        )
        with torch.inference_mode():
            found = ours_first(ours(grey()))
        inside = (..., slice(2, -2), slice(2, -2))
        assert torch.allclose(found[inside], theirs[inside], rtol=1e-4, atol=1e-4)
        assert not torch.allclose(found, theirs, rtol=1e-4, atol=1e-4)  # another grey past the edge


def test_eva_x_patches_become_the_tokens_that_they_were_on_its_own_scale(tmp_path: Path) -> None:
    state = made(eva_x())
    backbone = started("eva-x-tiny", tmp_path / "eva.pt", {"model": state}).backbone
    assert isinstance(backbone, EvaXBackbone)
    own_scale = ((grey() - 0.49185243) / 0.28509309).expand(-1, 3, -1, -1)

    theirs = functional.conv2d(
        own_scale, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=16
    )

    found = backbone.patch_embed["proj"](ours(grey()))
    assert torch.allclose(found, theirs, atol=1e-4)


def test_eva_x_is_the_same_network_by_timms_names(tmp_path: Path) -> None:
    own, timms = made(eva_x()), made(eva_x("fc1", "fc2", "fc_norm"))

    first = started("eva-x-tiny", tmp_path / "own.pt", own)
    second = started("eva-x-tiny", tmp_path / "timm.pt", timms)

    parts = zip(first.backbone.parameters(), second.backbone.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in parts)


def test_a_network_that_started_so_has_an_exact_map(tmp_path: Path) -> None:
    network = started("eva-x-tiny", tmp_path / "eva.pt", made(eva_x()))
    torch.nn.init.normal_(network.head.weight)
    image_NHW = torch.randint(0, 256, (2, 224, 224), dtype=torch.uint8)

    with torch.inference_mode():
        logit_N, cam_Nhw, _ = network(image_NHW)

    assert cam_Nhw.shape == (2, 14, 14)
    assert torch.allclose(cam_Nhw.mean(dim=(1, 2)) + network.cam_bias, logit_N, atol=1e-5)


def test_another_size_of_eva_x_is_refused(tmp_path: Path) -> None:
    state = made(eva_x()) | {"norm.weight": torch.zeros(384)}

    with pytest.raises(WeightsError, match=r"1 of another shape: norm\.weight"):
        started("eva-x-tiny", tmp_path / "small.pt", state)


def test_a_pair_of_channels_turns_with_its_row_or_its_column() -> None:
    cosine_Td, sine_Td = rotary_positions(14, 14, 64, torch.empty(0, dtype=torch.float64))
    token = 1 + 3 * 14 + 5  # row 3, column 5, after the class token

    for pair in range(16):
        pace = 10_000 ** (-pair / 16)
        row, column = torch.tensor([3 * pace, 5 * pace]).double()
        assert torch.allclose(cosine_Td[token, 2 * pair], row.cos())
        assert torch.allclose(sine_Td[token, 2 * pair + 1], row.sin())
        assert torch.allclose(sine_Td[token, 32 + 2 * pair], column.sin())
    assert torch.equal(cosine_Td[0], torch.ones(64).double())


def test_a_larger_grid_turns_no_further_than_the_one_that_was_learned() -> None:
    learned_2Td = rotary_positions(14, 14, 64, torch.empty(0))
    finer_2Td = rotary_positions(28, 28, 64, torch.empty(0))

    assert torch.allclose(finer_2Td[:, 1 + 2 * 28 + 4], learned_2Td[:, 1 + 14 + 2], atol=1e-6)
