"""The whole way on made images: train, export, evaluate, serve, predict; every step as a user types
it."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.factories import chest, make_jpeg
from tests.server import ROOT, running_server


@pytest.fixture(scope="module")
def made_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of 24 plain chests and 24 with a bright patch in one lung, a person each."""
    folder = tmp_path_factory.mktemp("images")
    for name in ("NORMAL", "PNEUMONIA"):
        (folder / "train" / name).mkdir(parents=True)
    for number in range(24):
        pixels = chest(96, 96, seed=number)
        (folder / f"train/NORMAL/IM-{number:04d}-0001.jpeg").write_bytes(make_jpeg(pixels))
        pixels[30:54, 60:80] = np.maximum(pixels[30:54, 60:80], 190)
        (folder / f"train/PNEUMONIA/person{number}_bacteria_1.jpeg").write_bytes(make_jpeg(pixels))
    return folder


def training(*arguments: object) -> str:
    """Run `python -m training` as a user does, and give what it printed."""
    command = [sys.executable, "-m", "training", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(900)
def test_a_model_is_trained_exported_evaluated_and_served(
    made_images: Path, tmp_path: Path
) -> None:
    run, store, out = tmp_path / "run", tmp_path / "store", tmp_path / "out"
    training("train", "smoke", "--data", made_images, "--out", run, "--set", "network=resnet-tiny")
    training("export", run, "--store", store, "--model", "smoke", "--version", 1)
    training("evaluate", store / "smoke/1", "--data", made_images, "--out", out)

    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["n"], metrics["n_positive"]) == (48, 24)
    assert (out / "report.html").stat().st_size > 10_000
    assert "max_batch_size" in (store / "smoke/config.pbtxt").read_text()

    rows = (out / "predictions.csv").read_text().splitlines()
    evaluated = [dict(zip(rows[0].split(","), row.split(","), strict=True)) for row in rows[1:]]
    with running_server(store, tmp_path / "log", default_model="smoke") as server:
        for row in evaluated[::12]:
            data = next(made_images.rglob(f"{row['image_id']}*")).read_bytes()
            answer = httpx.post(f"{server.url}/predict", files={"file": data})
            assert answer.status_code == 200, answer.text
            assert answer.json()["probability"] == pytest.approx(
                float(row["probability"]), abs=1e-5
            )
