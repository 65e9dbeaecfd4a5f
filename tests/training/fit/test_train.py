import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboardX.proto.event_pb2 import Event

from training.fit.batches import Batch, Samples
from training.fit.epoch import batch_loss, mixed_precision, rate_at, train_epoch
from training.fit.logs import JsonLinesLog
from training.fit.run_dir import load_network
from training.fit.train import train_model
from training.fit.train_state import TrainState
from training.fit.validate import validate
from training.hardware import bf16_instructions
from training.recipe.catalogue import smoke
from training.recipe.override import override
from training.recipe.schema import Recipe

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def recipe() -> Recipe:
    return override(
        smoke(), ["network=resnet-tiny", "epochs=2", "sizes=32", "ema=0.9", "average_last=2"]
    )


@pytest.fixture
def samples() -> Samples:
    """24 noise images, the positive ones with a bright patch."""
    rng = np.random.default_rng(5)
    image_NHW, label_N = rng.integers(0, 128, (24, 32, 32), dtype=np.uint8), np.arange(24) % 2
    image_NHW[label_N == 1, 8:20, 8:20] += 127
    return Samples(image_NHW, label_N)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return weights


def test_a_training_that_was_cut_off_ends_with_the_same_weights_to_the_last_bit(
    recipe: Recipe, samples: Samples, tmp_path: Path
) -> None:
    recipe = override(
        recipe, ["network=efficientnet-b0"]
    )  # its stochastic depth and dropout must go on as well
    train_model(recipe, samples, samples, tmp_path / "whole", seed=3)
    cut = TrainState.start(recipe, 3, CPU)
    train_epoch(cut, samples, "cut")
    cut.finish_epoch()
    (tmp_path / "cut").mkdir()
    cut.save(tmp_path / "cut/state.pt")  # the process ends here
    torch.manual_seed(99)

    train_model(recipe, samples, None, tmp_path / "cut", seed=3)

    whole, resumed = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    assert [line["epoch"] for line in log(tmp_path / "cut")] == [2]


def test_learning_from_outlines_resumes_to_the_last_bit_too(
    recipe: Recipe, samples: Samples, tmp_path: Path
) -> None:
    drawn = Samples(
        samples.image_NHW,
        samples.label_N,
        np.where(samples.image_NHW > 127, np.uint8(255), np.uint8(0)),
    )
    outlined = override(recipe, ["pool=lse", "mask_weight=0.5", "augment.mixup=0"])
    train_model(outlined, drawn, None, tmp_path / "whole", seed=3)
    cut = TrainState.start(outlined, 3, CPU)
    train_epoch(cut, drawn, "cut")
    cut.finish_epoch()
    (tmp_path / "cut").mkdir()
    cut.save(tmp_path / "cut/state.pt")

    train_model(outlined, drawn, None, tmp_path / "cut", seed=3)

    whole, resumed = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_what_was_noted_of_an_epoch_that_is_trained_anew_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"event": "epoch", "epoch": 1}\n{"event": "epoch", "epoch": 2}\n{"event": "ep')
    with JsonLinesLog(path, last_epoch=1) as log:
        log.write("epoch", epoch=2, loss=0.5)

    assert [line.get("loss") for line in map(json.loads, path.read_text().splitlines())] == [
        None,
        0.5,
    ]


def test_outlines_add_to_the_loss_of_a_batch(recipe: Recipe, samples: Samples) -> None:
    network = TrainState.start(override(recipe, ["pool=lse"]), 3, CPU).network.eval()
    image_N1HW = torch.from_numpy(samples.image_NHW)[:, None] / 255.0
    target_N = torch.from_numpy(samples.label_N).float()
    bare = Batch(image_N1HW, target_N, None)
    drawn = Batch(image_N1HW, target_N, (image_N1HW > 0.5).float())

    plain, light, heavy = (
        float(
            batch_loss(
                network,
                batch,
                override(recipe, ["augment.mixup=0", f"mask_weight={weight}"]),
                (1.0, 1.0),
            ).detach()
        )
        for batch, weight in ((bare, 0), (drawn, 0.5), (drawn, 1))
    )

    assert light > plain + 0.1
    assert heavy - plain == pytest.approx(2 * (light - plain), rel=1e-4)


def test_a_label_that_only_the_metadata_tell_is_learned_from_them(
    recipe: Recipe, samples: Samples
) -> None:
    noise_NHW = np.random.default_rng(6).integers(0, 256, samples.image_NHW.shape, dtype=np.uint8)
    metadata_NM = np.zeros((len(samples), 6), np.float32)
    metadata_NM[:, 4], metadata_NM[:, 5] = samples.label_N == 1, samples.label_N == 0
    told = Samples(noise_NHW, samples.label_N, metadata_NM=metadata_NM)
    fused = override(recipe, ["metadata=true", "augment.mixup=0", "epochs=10", "lr=1e-2", "ema=0"])
    state = TrainState.start(fused, 3, CPU)
    for _ in range(10):
        train_epoch(state, told, "fused")
        state.finish_epoch()

    weights_M = state.network.late
    assert weights_M is not None
    assert weights_M[4] > 0.03
    assert weights_M[5] < -0.03
    assert weights_M[:4].abs().max() == 0.0
    assert (validate(state.network, told, 32) or 0.0) > 0.9


def test_another_seed_gives_another_model(recipe: Recipe, samples: Samples, tmp_path: Path) -> None:
    for seed in (3, 4):
        train_model(
            override(recipe, ["epochs=1", "average_last=1"]),
            samples,
            None,
            tmp_path / str(seed),
            seed=seed,
        )

    one, other = (weights_of(tmp_path / str(seed))["backbone.stem.0.weight"] for seed in (3, 4))
    assert not torch.equal(one, other)


def test_a_finished_model_is_left_alone(recipe: Recipe, samples: Samples, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"finished")

    train_model(recipe, samples, None, tmp_path, seed=3)

    assert (tmp_path / "model.safetensors").read_bytes() == b"finished"


def test_a_finished_model_knows_novelty_and_leaves_no_state_behind(
    recipe: Recipe, samples: Samples, tmp_path: Path
) -> None:
    train_model(
        override(recipe, ["epochs=1", "average_last=1"]), samples, samples, tmp_path, seed=3
    )

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "metrics.jsonl",
        "model.safetensors",
        "tensorboard",
    ]
    network = load_network(tmp_path / "model.safetensors", recipe)
    assert int((network.novelty.features.whitening_KV != 0).any(dim=1).sum()) == len(samples) - 1


def test_each_epoch_is_logged_with_its_held_back_auroc(
    recipe: Recipe, samples: Samples, tmp_path: Path
) -> None:
    train_model(recipe, samples, samples, tmp_path, seed=3)

    lines = log(tmp_path)
    assert [(line["event"], line["epoch"], line["size"]) for line in lines] == [
        ("epoch", 1, 32),
        ("epoch", 2, 32),
    ]
    assert all(0.0 <= line["auroc"] <= 1.0 and math.isfinite(line["loss"]) for line in lines)


def test_each_epochs_figures_are_curves_in_tensorboard(
    recipe: Recipe, samples: Samples, tmp_path: Path
) -> None:
    train_model(recipe, samples, samples, tmp_path, seed=3)

    (events,) = (tmp_path / "tensorboard").iterdir()
    scalars = [
        (event.step, value.tag, value.simple_value)
        for event in read_events(events)
        for value in event.summary.value
    ]
    losses = [line["loss"] for line in log(tmp_path)]
    assert [(step, figure) for step, name, figure in scalars if name == "loss"] == [
        (epoch, pytest.approx(loss)) for epoch, loss in enumerate(losses, start=1)
    ]
    assert {name for _, name, _ in scalars} == {"loss", "auroc", "seconds", "images_per_second"}


def test_the_mean_of_the_last_epochs_averages_is_kept(
    recipe: Recipe, samples: Samples, tmp_path: Path
) -> None:
    state = TrainState.start(recipe, 3, CPU)
    after = []
    for _ in range(2):
        train_epoch(state, samples, "mean")
        state.finish_epoch()
        after.append(state.average.network.head.weight.clone())

    train_model(recipe, samples, None, tmp_path, seed=3)

    assert not torch.equal(after[0], after[1])
    assert torch.allclose(weights_of(tmp_path)["head.weight"], (after[0] + after[1]) / 2, atol=1e-7)


@pytest.mark.parametrize(
    ("network", "precision", "dtype"),
    [
        ("resnet-tiny", "auto", torch.float32),
        ("densenet-121", "auto", torch.bfloat16 if bf16_instructions() else torch.float32),
        ("resnet-tiny", "bf16", torch.bfloat16),
        ("densenet-121", "fp32", torch.float32),
    ],
)
def test_a_cpu_with_bf16_trains_densenets_in_it_and_any_does_where_the_recipe_says_so(
    network: str, precision: str, dtype: torch.dtype
) -> None:
    recipe = override(smoke(), [f"network={network}", f"precision={precision}"])

    with mixed_precision(recipe, CPU):
        product = torch.nn.functional.conv2d(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 3, 3))

    assert product.dtype == dtype


def test_a_network_learns_in_bf16_and_its_weights_stay_in_fp32(
    recipe: Recipe, samples: Samples
) -> None:
    learners = [
        TrainState.start(override(recipe, [f"precision={precision}"]), 3, CPU)
        for precision in ("fp32", "bf16")
    ]

    exact, rounded = (train_epoch(state, samples, "bf16") for state in learners)

    assert exact != rounded
    assert rounded == pytest.approx(exact, rel=0.05)
    assert {parameter.dtype for parameter in learners[1].network.parameters()} == {torch.float32}


def test_the_loss_falls(recipe: Recipe, samples: Samples) -> None:
    state = TrainState.start(override(recipe, ["epochs=12", "lr=3e-3", "augment.mixup=0"]), 3, CPU)
    losses = []
    for _ in range(6):
        losses.append(train_epoch(state, samples, "fall"))
        state.finish_epoch()

    assert min(losses[3:]) < losses[0]


def test_the_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    recipe = override(smoke(), ["epochs=8,2", "warmup_epochs=2"])

    rates = [rate_at(epoch, recipe) for epoch in np.linspace(0, 10, 41)]

    assert rates[0] > 0
    assert rates[8] == pytest.approx(1.0)
    assert rates[:9] == sorted(rates[:9])
    assert rates[8:] == sorted(rates[8:], reverse=True)
    assert rates[-1] == pytest.approx(0.0)


def test_a_held_out_part_without_one_class_has_no_auroc(samples: Samples) -> None:
    network = TrainState.start(smoke(), 3, CPU).network

    assert validate(network, samples.take(np.array([0, 2, 4])), 32) is None


def test_another_models_features_are_taken_over_and_its_head_is_not(
    recipe: Recipe, samples: Samples, tmp_path: Path
) -> None:
    train_model(override(recipe, ["epochs=1", "average_last=1"]), samples, None, tmp_path, seed=3)

    started = TrainState.start(
        override(recipe, [f"init_weights={tmp_path / 'model.safetensors'}"]), 5, CPU
    ).network

    old, new = weights_of(tmp_path), started.state_dict()
    assert torch.equal(old["backbone.stem.0.weight"], new["backbone.stem.0.weight"])
    assert not torch.equal(old["head.weight"], new["head.weight"])
    assert started.cam_bias == 0.0


def test_norms_and_biases_are_not_decayed() -> None:
    decayed, others = TrainState.start(smoke(), 3, CPU).optimizer.param_groups

    assert (decayed["weight_decay"], others["weight_decay"]) == (0.05, 0.0)
    assert {parameter.ndim for parameter in others["params"]} == {1}
    assert all(parameter.ndim > 1 for parameter in decayed["params"])


def test_the_average_of_weights_moves_quickly_at_first_and_slowly_later(
    recipe: Recipe,
) -> None:
    state = TrainState.start(recipe, 3, CPU)
    average, network = state.average, state.network
    torch.nn.init.constant_(network.bias, 1.0)

    average.update(network)
    first = average.network.cam_bias
    for _ in range(200):
        average.update(network)

    assert first == pytest.approx(0.9)
    assert average.network.cam_bias == pytest.approx(1.0)
    assert not any(parameter.requires_grad for parameter in average.network.parameters())


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def read_events(path: Path) -> Iterator[Event]:
    """Read TensorBoard's records: length, its checksum, an event, its checksum."""
    content = path.read_bytes()
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        yield Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]


def test_an_ensemble_answers_with_the_mean_of_its_members(
    recipe: Recipe, samples: Samples, tmp_path: Path
) -> None:
    two = override(
        recipe,
        ["normalisation=image,high-pass", "network=resnet-tiny", "epochs=1", "average_last=1"],
    )
    train_model(two, samples, samples, tmp_path, seed=3)

    ensemble = load_network(tmp_path / "model.safetensors", two)
    members = [
        load_network(
            tmp_path / "member-1/model.safetensors", override(two, ["normalisation=image"])
        ),
        load_network(
            tmp_path / "member-2/model.safetensors", override(two, ["normalisation=high-pass"])
        ),
    ]
    image_NHW = torch.from_numpy(samples.image_NHW)
    with torch.inference_mode():
        logit_N, cam_Nhw, novelty_N = ensemble(image_NHW)
        (one_N, one_Nhw, _), (two_N, two_Nhw, _) = (member(image_NHW) for member in members)
    assert not torch.allclose(one_N, two_N)
    assert torch.allclose(logit_N, (one_N + two_N) / 2, atol=1e-6)
    assert torch.allclose(cam_Nhw, (one_Nhw + two_Nhw) / 2, atol=1e-6)
    assert torch.allclose(cam_Nhw.mean(dim=(1, 2)) + ensemble.cam_bias, logit_N, atol=1e-6)
    assert torch.isfinite(novelty_N).all()


def test_an_ensemble_that_was_cut_off_keeps_the_members_that_were_finished(
    recipe: Recipe, samples: Samples, tmp_path: Path
) -> None:
    ensemble = override(
        recipe,
        ["normalisation=image,high-pass", "network=resnet-tiny", "epochs=1", "average_last=1"],
    )
    train_model(ensemble, samples, None, tmp_path / "whole", seed=3)
    cut = tmp_path / "cut/member-1"
    cut.mkdir(parents=True)
    (cut / "model.safetensors").write_bytes(
        (tmp_path / "whole/member-1/model.safetensors").read_bytes()
    )

    train_model(ensemble, samples, None, tmp_path / "cut", seed=3)

    whole, resumed = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    assert not (cut / "metrics.jsonl").exists()
