import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.multiprocessing.spawn import spawn

from training.__main__ import main
from training.data.auxiliary_labels import FINDINGS, PERSON
from training.fit.batches import Samples
from training.fit.distributed import refuse_empty_shards
from training.fit.epoch import train_epoch
from training.fit.train_state import TrainState
from training.recipe.catalogue import smoke
from training.recipe.override import override
from training.recipe.schema import RecipeError

SETTINGS = [
    "network=resnet-tiny", "dropout=0", "sizes=32", "epochs=2", "batch=9", "average_last=2",
    "augment.mixup=0.4", "precision=fp32",
]  # fmt: skip


def arguments(data_dir: Path, out: Path, *more: str) -> list[str]:
    settings = [word for setting in (*SETTINGS, *more) for word in ("--set", setting)]
    return ["train", "smoke", "--data", str(data_dir), "--out", str(out), *settings]


def torchrun(*words: str) -> subprocess.CompletedProcess[str]:
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "training",
    ]
    return subprocess.run(
        [*launcher, *words], capture_output=True, text=True, check=False, timeout=280
    )


def log(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.timeout(900)  # three Pythons that import torch
def test_two_processes_take_the_steps_of_one(films_dir: Path, tmp_path: Path) -> None:
    two = torchrun(*arguments(films_dir, tmp_path / "two"))
    assert two.returncode == 0, two.stderr
    assert main(arguments(films_dir, tmp_path / "one")) == 0

    one_lines, two_lines = (
        log(tmp_path / run / "fold-0" / "metrics.jsonl") for run in ("one", "two")
    )
    assert [line["loss"] for line in two_lines] == [
        pytest.approx(line["loss"], rel=1e-4) for line in one_lines
    ]
    assert [line["auroc"] for line in two_lines] == [
        pytest.approx(line["auroc"], abs=0.02) for line in one_lines
    ]
    assert log(tmp_path / "two" / "log.jsonl")[0]["processes"] == 2
    one, other = (
        load_file(tmp_path / run / "final" / "model.safetensors") for run in ("one", "two")
    )
    assert one.keys() == other.keys()
    for name in (key for key in one if key.startswith(("backbone", "head"))):
        assert torch.allclose(one[name].float(), other[name].float(), rtol=1e-2, atol=2e-4), name


def unevenly_known() -> Samples:
    """Twelve noise images; of each thing that a loss is a mean over an odd number is known, so that
    no two halves of a batch know as much."""
    rng = np.random.default_rng(11)
    mask_NHW = np.zeros((12, 32, 32), dtype=np.uint8)
    mask_NHW[:3, 8:16, 8:16] = 255
    auxiliary_NF = np.full((12, len(FINDINGS) + len(PERSON)), np.nan, dtype=np.float32)
    auxiliary_NF[:7, : len(FINDINGS)] = rng.integers(0, 2, (7, len(FINDINGS)))
    auxiliary_NF[:5, len(FINDINGS) :] = rng.uniform(0, 1, (5, len(PERSON)))
    return Samples(
        rng.integers(0, 256, (12, 32, 32), dtype=np.uint8),
        np.arange(12) % 2,
        mask_NHW,
        has_mask_N=np.arange(12) < 5,
        auxiliary_NF=auxiliary_NF,
    )


def one_step() -> dict[str, torch.Tensor]:
    """Take one step on all of them, and return its loss and its gradients by name."""
    torch.set_num_threads(1)
    recipe = override(
        smoke(), [*SETTINGS, "batch=12", "augment.mixup=0", "pool=lse", "mask_weight=1"]
    )
    state = TrainState.start(recipe, 3, torch.device("cpu"), with_auxiliary_head=True)
    found = {"loss": torch.tensor(train_epoch(state, unevenly_known(), "step"))}
    assert state.auxiliary_head is not None
    for module in (state.network, state.auxiliary_head):
        gradients = {name: each.grad for name, each in module.named_parameters()}
        found |= {name: each for name, each in gradients.items() if each is not None}
    return found


def one_step_of_two(rank: int, folder: Path) -> None:
    """Take the step as one of two processes, and write what it found to a file."""
    dist.init_process_group("gloo", f"file://{folder}/group", rank=rank, world_size=2)
    torch.save(one_step(), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.timeout(600)  # two more Pythons that import torch
def test_two_processes_weigh_what_is_known_of_few_images_as_one_does(tmp_path: Path) -> None:
    spawn(one_step_of_two, (tmp_path,), nprocs=2)  # type: ignore[no-untyped-call]

    whole = one_step()
    for rank in (0, 1):
        shared = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert shared.keys() == whole.keys()
        for name, expected in whole.items():
            assert torch.allclose(shared[name], expected, rtol=1e-3, atol=1e-5), name


def test_a_batch_that_could_leave_a_process_without_images_is_refused() -> None:
    refuse_empty_shards(4, 2)

    with pytest.raises(RecipeError, match="batch=3 is too small for 2 processes"):
        refuse_empty_shards(3, 2)
