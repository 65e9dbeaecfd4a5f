from pathlib import Path

import numpy as np
import pytest
import torch

from cxr.graph import OnnxGraph
from cxr.interpret import Cam, Outputs
from training.bundle.onnx_export import trace
from training.bundle.release_gates.graph_gates import file_gates, measure_parity, parity_gates
from training.model.backbone import Backbone
from training.model.backbones import (
    BACKBONES,
    DenseNetBackbone,
    EfficientNetLiteBackbone,
    LitePyramidBackbone,
    PyramidBackbone,
)
from training.model.eva_x import EvaXBackbone
from training.model.network import ChestNet
from training.model.small_resnet import SmallResNetBackbone
from training.recipe.catalogue import smoke
from training.recipe.override import override
from training.recipe.schema import NetworkName

PARAMETERS: dict[NetworkName, float] = {
    # Millions.  EfficientNets: Tan and Le 2019, table 2, Lite0: TensorFlow's, DenseNets and
    # ResNet-50: torchvision's, EVA-X: timm's; less the classifier and two input channels.
    "efficientnet-b0": 4.0, "efficientnet-b1": 6.5, "efficientnet-b2": 7.7, "efficientnet-b3": 10.7,
    "efficientnet-b4": 17.5, "efficientnet-b5": 28.3, "efficientnet-b6": 40.7,
    "efficientnet-b7": 63.8,
    "densenet-121": 6.9, "densenet-161": 26.5, "densenet-169": 12.5, "densenet-201": 18.1,
    "resnet-tiny": 0.174, "resnet-small": 0.7, "resnet-medium": 2.1, "pyramid-small": 0.32,
    "pyramid-medium": 0.723, "pyramid-large": 1.531, "efficientnet-lite0": 3.37,
    "pyramid-lite0": 3.10, "resnet-50": 23.5, "eva-x-tiny": 5.43,
}  # fmt: skip


def settled(backbone: Backbone) -> ChestNet:
    """Give an untrained network whose batch norms have seen noise and whose head is not near
    zero."""
    torch.manual_seed(1)
    torch.set_num_threads(1)
    network = ChestNet(backbone)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the statistics become those of the pass below
    with torch.no_grad():
        network.train().forward_features(torch.rand(4, 1, 64, 64))
    torch.nn.init.normal_(network.head.weight, std=network.head.in_channels**-0.5)
    torch.nn.init.constant_(network.bias, 0.7)
    network.prepare_for_export()
    return network


@pytest.mark.parametrize("name", BACKBONES)
def test_every_network_has_its_size_and_its_map_adds_up_to_the_logit(name: NetworkName) -> None:
    network = settled(BACKBONES[name]())
    with torch.inference_mode():
        logit_N, cam_Nhw, novelty_N = network(torch.randint(0, 256, (2, 64, 64), dtype=torch.uint8))
        feature_NChw = network.forward_features(torch.rand(1, 1, 64, 64))

    millions = sum(parameter.numel() for parameter in network.backbone.parameters()) / 1e6
    assert millions == pytest.approx(PARAMETERS[name], rel=0.02)
    side = 64 // override(smoke(), [f"network={name}"]).stride
    assert (cam_Nhw.shape, novelty_N.shape) == ((2, side, side), (2,))
    assert torch.allclose(cam_Nhw.mean(dim=(1, 2)) + network.cam_bias, logit_N, atol=1e-5)
    assert float(logit_N.std()) > 1e-4
    if not name.startswith(("efficientnet", "eva")):  # whose last layers give less than zero
        assert float(feature_NChw.min()) == 0.0


@pytest.mark.parametrize(
    "backbone",
    [
        pytest.param(
            DenseNetBackbone((2, 2, 2, 2), init_features=16, growth_rate=8), id="DenseNet"
        ),
        pytest.param(SmallResNetBackbone((16, 32, 64)), id="small ResNet"),
        pytest.param(PyramidBackbone((8, 8, 16, 16), channels=8), id="pyramid"),
        pytest.param(EfficientNetLiteBackbone(), id="EfficientNet-Lite"),
        pytest.param(LitePyramidBackbone(channels=16), id="pyramid on EfficientNet-Lite"),
        pytest.param(EvaXBackbone(32, heads=2, depth=2), id="EVA-X"),
    ],
)
def test_a_network_of_another_family_passes_the_gates_as_a_graph(
    backbone: Backbone, tmp_path: Path
) -> None:
    network, path = settled(backbone), tmp_path / "model.onnx"
    image_NHW = np.random.default_rng(2).integers(0, 256, (9, 64, 64), dtype=np.uint8)

    trace(network, 64, path)

    def run(batch_NHW: np.ndarray, _: np.ndarray | None) -> Outputs:
        with torch.inference_mode():
            return Outputs(*(output.numpy() for output in network(torch.from_numpy(batch_NHW))))

    parity = measure_parity(
        run, OnnxGraph(path), image_NHW, Cam(pool="mean", bias=network.cam_bias)
    )
    assert [gate for gate in (*file_gates(path), *parity_gates(parity)) if not gate.holds] == []
