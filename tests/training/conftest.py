"""Made radiographs with an easy finding, a run directory on them that needed no training, and the
bundle exported from it."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from cxr.phantom import draw_phantom
from tests.factories import make_png
from tests.made_once import made_once

if TYPE_CHECKING:
    from training.model.network import ChestNet
    from training.recipe.schema import Recipe

FILMS = 60
NETWORK = "resnet-tiny"
"""Exported in a third of the time of the smoke recipe's own network."""


@pytest.fixture(scope="session")
def films_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of 60 phantoms, three a person.  Positive ones have a bright patch, but for one
    radiograph in ten."""
    return made_once(tmp_path_factory, "films", _write_films)


def _write_films(folder: Path) -> Path:
    rng = np.random.default_rng(7)
    for number in range(FILMS):
        positive = number % 2 == 1
        pixels_HW = draw_phantom(96, 96, seed=number)
        if positive != (number % 10 == 0):
            row, column = rng.integers(24, 52, 2)
            pixels_HW[row : row + 20, column : column + 20] |= 0xC0
        name = (
            f"PNEUMONIA/person{number // 6}_virus_{number}.png"
            if positive
            else f"NORMAL/IM-{number // 6:04d}-{number:04d}.png"
        )
        path = folder / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_png(pixels_HW))
    return folder


@pytest.fixture(scope="session")
def run_dir(films_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished hold-out RUN of a small network, its last layer fitted in closed form."""
    return made_once(tmp_path_factory, "holdout-run", lambda out: _make_run(films_dir, out))


@pytest.fixture(scope="session")
def efficientnet_run_dir(films_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of the smoke recipe's own network, whose export takes long."""
    return made_once(
        tmp_path_factory,
        "efficientnet-run",
        lambda out: _make_run(films_dir, out, "network=efficientnet-b0"),
    )


@pytest.fixture(scope="session")
def folds_run_dir(films_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as two folds and a final network on everything."""
    return made_once(
        tmp_path_factory, "folds-run", lambda out: _make_run(films_dir, out, "validation=folds")
    )


@pytest.fixture(scope="session")
def fused_run_dir(films_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with age, sex and view beside the image."""
    return made_once(
        tmp_path_factory,
        "fused-run",
        lambda out: _make_run(films_dir, out, "metadata=true", "augment.mixup=0"),
    )


@pytest.fixture(scope="session")
def bundle_dir(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle exported from the hold-out RUN."""
    from training.bundle.export import export

    return made_once(
        tmp_path_factory, "patch-store", lambda store: export(run_dir, store, "patch", 1)
    )


@pytest.fixture(scope="session")
def folds_bundle_dir(folds_run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle exported from the RUN of two folds."""
    from training.bundle.export import export

    return made_once(
        tmp_path_factory, "folds-store", lambda store: export(folds_run_dir, store, "folds", 1)
    )


@pytest.fixture(scope="session")
def fused_bundle_dir(fused_run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle exported from the RUN that reads age, sex and view."""
    from training.bundle.export import export

    return made_once(
        tmp_path_factory, "fused-store", lambda store: export(fused_run_dir, store, "fused", 1)
    )


def _make_run(films_dir: Path, out: Path, *settings: str) -> Path:
    from training.fit.batches import open_cache
    from training.fit.run_dir import save_network
    from training.fit.start_or_resume import open_run
    from training.recipe.catalogue import smoke
    from training.recipe.override import override

    command = f"python -m training train smoke --data {films_dir} --out {out}"
    recipe = override(smoke(), [f"network={NETWORK}", *settings])
    run = open_run(recipe, films_dir, out, command)
    image_NHW, label_N = np.asarray(open_cache(run)), run.index.label_N
    for fold in run.held_out_folds:
        learned = run.fold_N != fold
        save_network(
            out / f"fold-{fold}" / "model.safetensors",
            _fitted_network(image_NHW[learned], label_N[learned], fold, run.recipe),
        )
    learned = run.fold_N != (0 if run.recipe.validation == "holdout" else -1)
    save_network(
        out / "final" / "model.safetensors",
        _fitted_network(image_NHW[learned], label_N[learned], 0, run.recipe),
    )
    return out


def _fitted_network(
    image_NHW: NDArray[np.uint8], label_N: NDArray[np.int64], seed: int, recipe: "Recipe"
) -> "ChestNet":
    """Make a network with random features, settled batch norms, and a ridge regression for a head.

    The batch norms see the edge images too, without which an untrained network answers those with
    thousands."""
    import torch

    from training.bundle.release_gates.graph_gates import edge_images
    from training.model.network import ChestNet

    torch.set_num_threads(
        1
    )  # threads that wait for each other on a busy machine take six times as long
    torch.manual_seed(seed + 1)
    network = ChestNet.named(recipe.network, metadata=recipe.metadata)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the running statistics become those of the one pass below
    settling_NHW = np.concatenate([image_NHW, *4 * [edge_images(image_NHW.shape[1])]])
    with torch.no_grad():
        network.train().forward_features(torch.from_numpy(settling_NHW)[:, None].float() / 255)
        image_N1HW = torch.from_numpy(np.array(image_NHW))[:, None].float() / 255
        feature_NC = network.eval().forward_features(image_N1HW).mean(dim=(2, 3))
        network.novelty.fit(network.novelty.describe(image_N1HW, feature_NC))
        centered_NC = feature_NC - feature_NC.mean(dim=0)
        gram_NN = centered_NC @ centered_NC.T
        penalty_NN = 0.1 * gram_NN.diag().mean() * torch.eye(len(gram_NN))
        weight_C = centered_NC.T @ torch.linalg.solve(
            gram_NN + penalty_NN, torch.from_numpy(label_N * 0.4 - 0.2).float()
        )
        network.head.weight.copy_(weight_C[None, :, None, None])
        network.bias.fill_(-float(feature_NC.mean(dim=0) @ weight_C))
        if network.late is not None:
            network.late.copy_(torch.linspace(-0.1, 0.1, len(network.late)))
    return network
