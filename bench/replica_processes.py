"""Replicas and their proxy as plain processes of this machine."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.replica_places import SETTINGS, Fleet, Replica, until_ready, write_proxy_config
from tests.server import free_port

ROOT = Path(__file__).parent.parent


@dataclass
class ReplicaProcess:
    """One process of the service."""

    store: Path
    port: int = field(default_factory=free_port)
    settings: dict[str, str] = field(default_factory=lambda: dict(SETTINGS))
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    async def start(self) -> None:
        here = {"CXR_STORE": str(self.store), "CXR_PORT": str(self.port)}
        self.process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
            [sys.executable, "-m", "app"],
            cwd=ROOT,
            env={**os.environ, **self.settings, **here},
            stdout=subprocess.DEVNULL,
        )
        await until_ready(self.url)

    async def signal(self, name: str) -> None:
        assert self.process is not None
        self.process.send_signal(signal.Signals[f"SIG{name}"])

    async def end(self) -> None:
        await self.signal("TERM")
        assert self.process is not None
        await asyncio.to_thread(self.process.wait)


class ProxyProcess:
    """nginx or HAProxy of this machine."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.port = free_port()
        self._kind = kind
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self, replicas: Sequence[Replica]) -> None:
        self._write(replicas)
        words = {
            "nginx": ["nginx", "-p", str(self._folder), "-c", "proxy.conf", "-g", "daemon off;"],
            "haproxy": ["haproxy", "-W", "-f", str(self._folder / "proxy.conf")],
        }[self._kind]
        self._process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
            words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        await asyncio.sleep(2)

    async def reload(self, replicas: Sequence[Replica]) -> None:
        self._write(replicas)
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP if self._kind == "nginx" else signal.SIGUSR2)

    def stop(self) -> None:
        """End the proxy, if it was started."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def _write(self, replicas: Sequence[Replica]) -> None:
        listen = f"127.0.0.1:{self.port}"
        write_proxy_config(self._folder / "proxy.conf", self._kind, listen, replicas)


@contextmanager
def process_fleet(kind: str, store: Path, folder: Path) -> Iterator[Fleet]:
    """Yield three replicas and a proxy that are not started; end those that were."""
    home = folder / "proxy"
    home.mkdir()
    home.chmod(0o777)  # nginx's workers are another user
    replicas = [ReplicaProcess(store) for _ in range(3)]
    proxy = ProxyProcess(kind, home)
    try:
        yield Fleet(replicas, proxy)
    finally:
        proxy.stop()
        for replica in replicas:
            if replica.process is not None:
                replica.process.kill()
                replica.process.wait()
