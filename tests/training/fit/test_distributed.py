import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from training.__main__ import main
from training.fit.distributed import refuse_empty_shards
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


def test_a_batch_that_could_leave_a_process_without_images_is_refused() -> None:
    refuse_empty_shards(4, 2)

    with pytest.raises(RecipeError, match="batch=3 is too small for 2 processes"):
        refuse_empty_shards(3, 2)
