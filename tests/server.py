"""Start the real service as a process of its own, and talk to it over a real socket."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent
MAX_START_S = 240.0
SERVER_PORTS = (20_000, 32_000)


@dataclass(frozen=True)
class Server:
    """A running service: where it listens, its process, and what it has logged so far."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def children(self) -> list[int]:
        """The processes that the service has started."""
        found: list[int] = []
        for thread in Path(f"/proc/{self.process.pid}/task").iterdir():
            with suppress(
                FileNotFoundError, ProcessLookupError
            ):  # it has ended since it was listed
                found += map(int, (thread / "children").read_text().split())
        return found


@contextmanager
def running_server(store: Path, log: Path, **settings: object) -> Iterator[Server]:
    """Run `python -m app` on a free port of the loopback until the block ends; ready when
    entered."""
    port = free_port()
    named = {
        "STORE": store,
        "PORT": port,
        "DRAIN_SECONDS": 0,
        "CACHE_DIR": log.parent / "cache",
        **{name.upper(): value for name, value in settings.items()},
    }
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CXR_")},
        **{f"CXR_{name}": str(value) for name, value in named.items()},
    }
    command = [sys.executable, "-m", "app"]
    with (
        log.open("wb") as file,
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(url, process, log)
            yield Server(url, process, log)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=90)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def free_port() -> int:
    """Return a port of the loopback that nobody listens on.

    It is below those that the kernel hands out by itself (`ip_local_port_range`), so that no
    connection of another test takes it before the server does.
    """
    while True:
        port = random.randrange(*SERVER_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    started = time.monotonic()
    while time.monotonic() - started < MAX_START_S:
        if process.poll() is not None:
            break
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"the service did not become ready:\n{log.read_text()[-3000:]}")
