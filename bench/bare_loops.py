"""Run the loops that serve nobody, each in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

from bench.figures import Figures
from bench.processes import ROOT, clean_environment
from bench.servers import graph_environment
from cxr.bundle import Bundle

OUR_READER = "our_read"
OTHER_READERS = ("read_carefully", "read_leanly")


def bare_loop(bundle: Bundle, file: Path, seconds: float, reader: str = OUR_READER) -> Figures:
    """Measure a loop that reads one file and runs the graph; see `bench.bare` for the readers."""
    environment = {
        **clean_environment(),
        "PYTHONPATH": str(ROOT),
        **graph_environment(bundle),
    }
    command = [sys.executable, "-m", "bench.bare", str(file), str(seconds), reader]
    said = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    figures: Figures = json.loads(said.stdout)
    return figures
