"""`python -m bench.gpu`: tried on the CPU, and its page of whatever was found."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.gpu import BATCHES, sweep
from bench.gpu_page import gpu_page
from bench.processes import ROOT
from cxr.bundle import read_bundle
from tests.bundles import write_made_bundle

IMAGE_HW = np.zeros((32, 32), np.uint8)


@pytest.fixture
def found() -> dict[str, Any]:
    """What the last run on a GPU found."""
    loaded: dict[str, Any] = json.loads(
        (ROOT / "bench/results/gpu.json").read_text(encoding="utf-8")
    )
    return loaded


def test_every_size_of_a_batch_is_measured(tmp_path: Path) -> None:
    bundle = read_bundle(write_made_bundle(tmp_path, "made", 1))
    measured = dict(sweep(bundle, IMAGE_HW, argparse.Namespace(device="cpu", seconds=0.005)))
    assert measured.keys() == {"fp32", "tf32"}
    assert measured["fp32"]["off_by"] == 0
    assert [int(size) for size in measured["fp32"]["batches"]] == list(BATCHES)


def test_a_graph_that_does_not_open_is_shown_with_its_reason(tmp_path: Path) -> None:
    bundle = read_bundle(write_made_bundle(tmp_path, "made", 1))
    bundle.graph_path.write_bytes(b"no graph")
    with pytest.raises(
        Exception, match="no ONNX model"
    ):  # the CPU's answers are what all are compared with
        dict(sweep(bundle, IMAGE_HW, argparse.Namespace(device="cpu", seconds=0.005)))


def test_the_committed_page_is_what_was_found(found: dict[str, Any]) -> None:
    assert (ROOT / "bench/GPU.md").read_text(encoding="utf-8") == gpu_page(found)


def test_what_failed_or_is_missing_is_no_reason_for_a_page_to_fail(found: dict[str, Any]) -> None:
    found["served"]["6"] = {"error": "it said nothing"}
    found["models"]["pneumothorax"]["graphs"]["fp32"] = {"error": "no memory"}
    page = gpu_page(found)
    assert "| 6 | it said nothing | - |" in page
    assert "fp32 | no memory | - |" in page
    del found["decode_per_s"], found["views"]
    assert "Whole answers" not in gpu_page(found)
    assert gpu_page({"machine": {}, "models": {}})
