"""Where and with what a measurement was made."""

import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from app.cpu import usable_cores
from app.models.execution_plan import processor
from bench.processes import ROOT
from bench.servers import peer_versions

OURS = (
    "onnxruntime",
    "openvino",
    "numpy",
    "pillow",
    "imagecodecs",
    "fastapi",
    "uvicorn",
    "uvloop",
    "torch",
)


def describe_machine(peers_python: Path) -> dict[str, str]:
    """State processor, load, versions and commit; called before anything is measured."""
    return {
        "processor": f"{processor()}, {usable_cores()} cores for us, {os.cpu_count()} in all",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "load average before": ", ".join(f"{load:.2f}" for load in os.getloadavg()),
        "busy before": f"{100 * busy_share():.0f} % of all cores",
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
        "commit": _git("rev-parse", "--short", "HEAD")
        + (" with changes" if _git("status", "--porcelain", "-uno") else ""),
        "versions, ours": ", ".join(f"{name} {_version(name)}" for name in OURS),
        "versions, peers": ", ".join(
            f"{name} {is_at}" for name, is_at in peer_versions(peers_python).items()
        )
        or "none",
        "command": " ".join(
            ["python -m bench", *("PATH" if os.sep in word else word for word in sys.argv[1:])]
        ),
    }


def busy_share(seconds: float = 2.0) -> float:
    """Watch for a while which share of all cores' time others use (proc(5), stat)."""
    before = _cpu_times()
    time.sleep(seconds)
    spent = [after - then for after, then in zip(_cpu_times(), before, strict=True)]
    return 1 - (spent[3] + spent[4]) / sum(spent)  # idle, and waiting for a disk


def _cpu_times() -> list[int]:
    return [int(ticks) for ticks in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]


def _git(*arguments: str) -> str:
    said = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    return said.stdout.strip()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
