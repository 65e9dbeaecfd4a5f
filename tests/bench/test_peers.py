"""The peers are files to be run: nothing of them is imported until then."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server import ROOT

PEERS = sorted(
    path
    for path in (ROOT / "bench/peers").glob("*_*.py")
    if path.name not in ("__init__.py", "own_reading.py")
)
LIBRARIES = {"litserve", "bentoml", "ray", "mosec", "torch", "matplotlib"}


def test_measuring_and_collecting_import_no_peer() -> None:
    script = "import json, sys, bench.__main__; print(json.dumps(sorted(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True)
    modules = set(json.loads(said.stdout))
    assert not modules & LIBRARIES
    assert not {
        name
        for name in modules
        if name.startswith("bench.peers.") and name != "bench.peers.reading"
    }


@pytest.mark.parametrize("peer", PEERS, ids=lambda path: path.stem)
def test_a_peer_serves_only_when_it_is_run_and_reads_as_all_do(peer: Path) -> None:
    module = ast.parse(peer.read_text())
    imported = {
        name for node in module.body if isinstance(node, ast.ImportFrom) for name in [node.module]
    }
    assert "bench.peers.reading" in imported
    assert isinstance(module.body[-1], ast.If)
    assert ast.unparse(module.body[-1].test) == "__name__ == '__main__'"


def test_every_peer_is_among_the_servers() -> None:
    named = (ROOT / "bench/servers.py").read_text()
    assert [peer.stem for peer in PEERS if f'"{peer.stem}"' not in named] == []
    assert len(PEERS) == 8
