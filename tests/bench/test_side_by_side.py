"""How ways are compared round by round, and that the loops that serve nobody run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom.uid import JPEGBaseline8Bit

from bench.changes import current_bundle
from bench.servers import graph_environment
from bench.side_by_side import WAYS, Round, Way, make_server
from tests.factories import chest, make_dicom
from tests.server import ROOT

STORE = ROOT / "model_store"


def way(name: str, *per_s: float) -> Way:
    return Way(name, [Round(value, 10.0, 1.5, 3.0) for value in per_s])


def test_ways_are_compared_within_the_same_rounds() -> None:
    slow, fast = way("slow", 10, 50, 20), way("fast", 20, 100, 40)

    assert fast.ratios(slow) == [2.0, 2.0, 2.0]
    assert "2.00 (2.00 to 2.00)" in fast.line(slow)


def test_every_way_that_is_measured_by_default_can_be_made(tmp_path: Path) -> None:
    bundle = current_bundle(STORE, "pneumothorax")
    for name in WAYS:
        if not name.startswith("loop:"):
            make_server(name, bundle, STORE, tmp_path, Path(sys.executable))

    with pytest.raises(KeyError):
        make_server("nobody", bundle, STORE, tmp_path, Path(sys.executable))


@pytest.mark.parametrize("reader", ["our_read", "read_carefully", "read_leanly"])
def test_a_loop_that_serves_nobody_reads_and_runs(reader: str, tmp_path: Path) -> None:
    file = tmp_path / "upload"
    file.write_bytes(make_dicom(chest(512, 512), syntax=JPEGBaseline8Bit))
    environment = {
        "PYTHONPATH": str(ROOT),
        **graph_environment(current_bundle(STORE, "pneumothorax")),
    }
    command = [sys.executable, "-m", "bench.bare", str(file), "0.1", reader]
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)

    assert json.loads(said.stdout)["per_s"] > 0
