"""The real service, with the shipped bundles or others, on a port that outlives its deaths."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.server import ROOT, free_port

MAX_START_S = 600.0


@dataclass
class RunningService:
    """A service that can be killed and started again."""

    folder: Path
    store: Path = ROOT / "model_store"
    default_model: str = "pneumothorax"
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        self.folder.mkdir(exist_ok=True)
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("CXR_")
        }
        own = {
            "CXR_STORE": str(self.store), "CXR_PORT": str(self.port),
            "CXR_DEFAULT_MODEL": self.default_model,
            "CXR_DRAIN_SECONDS": "0", "CXR_CACHE_DIR": str(self.folder / "cache"),
        }  # fmt: skip
        with (self.folder / "log").open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app"],
                cwd=ROOT, env=inherited | own, stdout=file, stderr=file,
            )  # fmt: skip
        until = time.monotonic() + MAX_START_S
        while True:
            assert self.process.poll() is None, "the service has ended"
            assert time.monotonic() < until, "the service does not start"
            try:
                if httpx.get(f"{self.url}/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)

    def kill(self) -> None:
        """End it as a power cut would, its decoders with it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(60)
            self.process = None

    def stop(self) -> None:
        """End it as an administrator would."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)
            self.process = None
