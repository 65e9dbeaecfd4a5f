import pytest
import torch
from torch import Tensor

from training.model.network import ChestNet


@pytest.fixture(scope="module")
def network() -> ChestNet:
    """An untrained network whose batch norms have seen noise and whose head is not near zero."""
    torch.manual_seed(1)
    network = ChestNet.named("efficientnet-b0")
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the statistics become those of the pass below
    with torch.no_grad():
        network.train().forward_features(torch.rand(8, 1, 64, 64))
    torch.nn.init.normal_(network.head.weight)
    torch.nn.init.constant_(network.bias, 0.7)
    return network.eval()


@pytest.fixture(scope="module")
def image_NHW() -> Tensor:
    return torch.randint(
        0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(2)
    )


@torch.inference_mode()
def test_the_map_adds_up_to_the_logit(network: ChestNet, image_NHW: Tensor) -> None:
    logit_N, cam_Nhw, novelty_N = network(image_NHW)

    assert (logit_N.shape, cam_Nhw.shape, novelty_N.shape) == ((3,), (3, 2, 2), (3,))
    assert {logit_N.dtype, cam_Nhw.dtype, novelty_N.dtype} == {torch.float32}
    assert float(logit_N.std()) > 1e-3
    assert torch.allclose(cam_Nhw.mean(dim=(1, 2)) + network.cam_bias, logit_N, atol=1e-6)


@torch.inference_mode()
def test_with_an_lse_pool_a_few_strong_cells_decide_and_the_bias_is_in_the_map(
    network: ChestNet, image_NHW: Tensor
) -> None:
    pooled = ChestNet(network.backbone, pool="lse").eval()
    torch.nn.init.normal_(pooled.head.weight)
    torch.nn.init.constant_(pooled.bias, 0.7)

    logit_N, cam_Nhw, _ = pooled(image_NHW)

    assert pooled.cam_bias == 0.0
    assert torch.allclose(cam_Nhw.exp().mean(dim=(1, 2)).log(), logit_N, atol=1e-5)
    bare_Nhw = pooled.head(pooled.forward_features(image_NHW[:, None] / 255.0))[:, 0]
    assert torch.allclose(cam_Nhw - bare_Nhw, torch.tensor(0.7), atol=1e-5)


@torch.inference_mode()
def test_training_and_serving_give_one_logit(network: ChestNet, image_NHW: Tensor) -> None:
    assert torch.allclose(
        network.forward_logit(image_NHW[:, None] / 255.0), network(image_NHW)[0], atol=1e-5
    )


@torch.inference_mode()
def test_an_image_gets_the_same_answer_in_any_batch(network: ChestNet, image_NHW: Tensor) -> None:
    alone = torch.cat([network(image_NHW[i : i + 1])[0] for i in range(3)])

    assert torch.allclose(alone, network(image_NHW)[0], atol=1e-4)


@torch.inference_mode()
def test_preparing_for_export_changes_no_answer(image_NHW: Tensor) -> None:
    torch.manual_seed(3)
    network = ChestNet.named("efficientnet-b0").eval()
    before = network(image_NHW)[1]

    network.prepare_for_export()

    assert not network.training
    assert torch.allclose(network(image_NHW)[1], before, atol=1e-6)


def test_a_new_head_forgets_the_old_task_and_keeps_the_features() -> None:
    network = ChestNet.named("efficientnet-b0")
    torch.nn.init.constant_(network.bias, 2.0)
    head, stem = (
        network.head.weight.clone(),
        network.backbone.get_parameter("_conv_stem.weight").clone(),
    )

    network.reset_head()

    assert network.cam_bias == 0.0
    assert not torch.equal(network.head.weight, head)
    assert torch.equal(network.backbone.get_parameter("_conv_stem.weight"), stem)


@torch.inference_mode()
def test_what_is_known_beside_the_image_adds_to_the_logit_and_not_to_the_map(
    network: ChestNet, image_NHW: Tensor
) -> None:
    fused = ChestNet(network.backbone, pool="lse", metadata=True).eval()
    assert fused.late is not None
    torch.nn.init.constant_(fused.late, 0.1)
    feature_NChw = fused.forward_features(image_NHW[:, None] / 255.0)
    metadata_NM = torch.zeros(3, len(fused.late))
    metadata_NM[0, 0], metadata_NM[1, 1] = 1.0, -2.0

    bare_N, bare_Nhw = fused.read(feature_NChw)
    logit_N, cam_Nhw = fused.read(feature_NChw, metadata_NM)

    assert torch.equal(cam_Nhw, bare_Nhw)
    assert torch.allclose(logit_N - bare_N, torch.tensor([0.5, -1.0, 0.0]), atol=1e-5)


def test_a_network_that_also_reads_metadata_starts_from_the_same_weights() -> None:
    torch.manual_seed(4)
    bare = ChestNet.named("resnet-tiny").state_dict()
    torch.manual_seed(4)
    fused = ChestNet.named("resnet-tiny", metadata=True).state_dict()

    assert set(fused) - set(bare) == {"late"}
    assert all(torch.equal(tensor, fused[name]) for name, tensor in bare.items())
