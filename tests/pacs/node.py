"""The real gateway as a process of its own, which can be killed and started again."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from gateway.failpoints import VARIABLE
from tests.server import ROOT, free_port

MAX_START_S = 600.0


@dataclass
class Gateway:
    """A gateway on a folder; its settings are written before each start."""

    folder: Path
    service_url: str
    destinations: list[dict[str, Any]]
    rules: list[dict[str, Any]]
    peers: list[str] = field(default_factory=lambda: [f"SENDER{number}" for number in range(1, 9)])
    node: dict[str, Any] = field(default_factory=dict)
    http: dict[str, Any] = field(default_factory=dict)
    dicom_port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """Where its page and metrics are."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def config(self) -> Path:
        """Its settings."""
        return self.folder / "gateway.toml"

    @property
    def log(self) -> Path:
        """What all its runs have logged."""
        return self.folder / "gateway.log"

    def write_settings(self) -> None:
        """Write the TOML file."""
        self.folder.mkdir(exist_ok=True)
        node = {
            "host": "127.0.0.1", "port": self.dicom_port, "folder": str(self.folder / "data"),
            "min_free_percent": 1, "min_free_gb": 0.1, **self.node,
        }  # fmt: skip
        tables = [
            _table("[node]", node),
            _table("[http]", {"port": self.http_port, **self.http}),
            _table("[service]", {"url": self.service_url}),
            *(_table("[[peers]]", {"ae_title": peer}) for peer in self.peers),
            *(_table("[[destinations]]", one) for one in self.destinations),
            *(_table("[[rules]]", rule) for rule in self.rules),
        ]
        self.config.write_text("\n".join(tables))

    def launch(self, failpoint: str = "") -> "subprocess.Popen[bytes]":
        """Start it, and wait for nothing."""
        self.write_settings()
        environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
        if failpoint:
            environment[VARIABLE] = failpoint
        with self.log.open("ab") as file:
            command = [sys.executable, "-m", "gateway", "--config", str(self.config)]
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=file, stderr=file
            )
        return self.process

    def start(self, failpoint: str = "") -> None:
        """Start it, and wait until it answers, or until an armed failpoint has killed it."""
        process = self.launch(failpoint)
        until = time.monotonic() + MAX_START_S
        while process.poll() is None:
            try:
                httpx.get(f"{self.url}/livez", timeout=5)
                return
            except httpx.TransportError:
                assert time.monotonic() < until, "the gateway does not start"
                time.sleep(0.02)
        assert process.returncode == -signal.SIGKILL, self.log.read_text()[-3000:]

    def stop(self) -> None:
        """End it as an administrator would."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(60) in (0, -signal.SIGTERM)
        self.process = None

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(60)

    @property
    def was_killed(self) -> bool:
        """Whether a failpoint has ended it."""
        return self.process is not None and self.process.poll() == -signal.SIGKILL

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a metric's samples that carry some labels."""
        total = 0.0
        for line in httpx.get(f"{self.url}/metrics", timeout=30).text.splitlines():
            if line.split("{")[0].split(" ")[0] == name and all(
                f'{label}="{value}"' in line for label, value in labels.items()
            ):
                total += float(line.rsplit(" ", 1)[1])
        return total


def _table(header: str, values: dict[str, Any]) -> str:
    lines = [header]
    for name, value in values.items():
        lines.append(f"{name} = {_value(value)}")
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_value(inner)}" for name, inner in value.items()) + "}"
    return f'"{value}"' if isinstance(value, str) else str(value)
