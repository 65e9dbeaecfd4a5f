"""Drive `docker compose` as a person would: the same file, another project name, other ports,
another store."""

import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parent.parent.parent
BASE_IMAGE = "python:3.11-slim-bookworm"
IMAGE = "cxr-serve:test"


def has_engine() -> bool:
    """Tell whether a container engine answers."""
    try:
        return (
            subprocess.run(
                ["docker", "info"], check=False, capture_output=True, timeout=30
            ).returncode
            == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def docker(*arguments: str) -> str:
    """Run one docker command; gives what it prints, and shows what it complains of."""
    done = subprocess.run(
        ["docker", *arguments], check=False, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"docker {' '.join(arguments)}:\n{done.stderr[-3000:]}"
    return done.stdout


def inspect(name: str) -> dict[str, Any]:
    """Describe an image or a container."""
    described: list[dict[str, Any]] = json.loads(docker("inspect", name))
    return described[0]


@dataclass(frozen=True)
class Stack:
    """The composed services on free ports of the loopback."""

    project: str
    store: Path
    port: int
    prometheus_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def prometheus_url(self) -> str:
        return f"http://127.0.0.1:{self.prometheus_port}"

    @property
    def container(self) -> str:
        return f"{self.project}-cxr-1"

    def compose(self, *arguments: str) -> str:
        """Run one `docker compose` command in the project."""
        variables = {
            "TAG": "test", "MODEL_STORE": str(self.store), "PORT": str(self.port),
            "PROMETHEUS_PORT": str(self.prometheus_port),
        }  # fmt: skip
        command = ["docker", "compose", "--project-name", self.project, *arguments]
        done = subprocess.run(
            command,
            check=False,
            cwd=ROOT,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stderr[-3000:]}"
        return done.stdout

    def wait_until_ready(self, *, max_s: float = 60) -> float:
        """Ask until the service is ready; gives the seconds that took."""
        started = time.monotonic()
        while time.monotonic() - started < max_s:
            try:
                if httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200:
                    return time.monotonic() - started
            except httpx.TransportError:
                pass
            time.sleep(0.02)
        raise AssertionError(
            f"not ready after {max_s:g} seconds:\n{self.compose('logs', '--tail', '30', 'cxr')}"
        )

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Ask Prometheus for an instant vector."""
        answer = httpx.get(
            f"{self.prometheus_url}/api/v1/query", params={"query": expression}, timeout=10
        )
        assert answer.status_code == 200, f"{expression}: {answer.text}"
        result: list[dict[str, Any]] = answer.json()["data"]["result"]
        return result

    def memory_mb(self) -> float:
        """Give what the service's container holds of the host's memory, page cache left out."""
        used = (
            docker("stats", "--no-stream", "--format", "{{.MemUsage}}", self.container)
            .split("/")[0]
            .strip()
        )
        units = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
        return float(used[:-3]) * units[used[-3:]] / 1e6
