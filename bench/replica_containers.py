"""Replicas and their proxy as containers in a network of their own."""

import asyncio
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.replica_places import SETTINGS, Fleet, Replica, until_ready, write_proxy_config
from tests.server import free_port

NETWORK = "cxr-replicas"
SUBNET = "10.213.77"
"""An address stays a container's own over restarts, as a pod's does for its life."""

PROXY_IMAGE = "cxr-proxy:test"
PROXY_DOCKERFILE = """
FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends nginx-light haproxy \\
 && rm -rf /var/lib/apt/lists/*
"""
STOP_S = 45
"""As `terminationGracePeriodSeconds`: over the drain and the longest answer together."""


def docker(*words: str, text: str | None = None) -> str:
    """Run one docker command; return what it prints."""
    done = subprocess.run(
        ["docker", *words], input=text, check=True, capture_output=True, text=True, timeout=600
    )
    return done.stdout.strip()


async def _docker(*words: str) -> str:
    return await asyncio.to_thread(docker, *words)


@dataclass
class ReplicaContainer:
    """One container of the service, with a read-only root as on a cluster."""

    image: str
    store: Path
    number: int
    port: int = field(default_factory=free_port)
    settings: dict[str, str] = field(default_factory=lambda: dict(SETTINGS))

    @property
    def name(self) -> str:
        return f"{NETWORK}-{self.number}"

    @property
    def address(self) -> str:
        return f"{SUBNET}.{10 + self.number}:8000"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        settings = {**self.settings, "CXR_WAIVE_API_KEY": "true", "CXR_ALLOWED_HOSTS": "*"}
        variables = [word for pair in settings.items() for word in ("--env", "=".join(pair))]
        await _docker("rm", "--force", self.name)
        await _docker(
            "run", "--detach", "--name", self.name, "--network", NETWORK,
            "--ip", self.address.partition(":")[0], "--publish", f"127.0.0.1:{self.port}:8000",
            "--volume", f"{self.store}:/srv/model_store:ro", "--read-only", "--tmpfs", "/tmp",
            "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
            *variables, self.image,
        )  # fmt: skip
        await until_ready(self.url)

    async def signal(self, name: str) -> None:
        await _docker("kill", "--signal", name, self.name)

    async def end(self) -> None:
        await _docker("stop", "--time", str(STOP_S), self.name)


class ProxyContainer:
    """nginx or HAProxy of Debian."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.port = free_port()
        self._kind = kind
        self._folder = folder

    @property
    def name(self) -> str:
        return f"{NETWORK}-proxy"

    async def start(self, replicas: Sequence[Replica]) -> None:
        self._write(replicas)
        config = "/etc/proxy/proxy.conf"
        words = {
            "nginx": ["nginx", "-p", "/run/proxy", "-c", config, "-g", "daemon off;"],
            "haproxy": ["haproxy", "-W", "-f", config],
        }[self._kind]
        await _docker("rm", "--force", self.name)
        await _docker(
            "run", "--detach", "--init", "--name", self.name, "--network", NETWORK,
            "--publish", f"127.0.0.1:{self.port}:8080", "--tmpfs", "/run/proxy:mode=1777",
            "--volume", f"{self._folder}:/etc/proxy:ro", PROXY_IMAGE, *words,
        )  # fmt: skip
        await asyncio.sleep(2)

    async def reload(self, replicas: Sequence[Replica]) -> None:
        self._write(replicas)
        await _docker("kill", "--signal", "HUP" if self._kind == "nginx" else "USR2", self.name)

    def _write(self, replicas: Sequence[Replica]) -> None:
        write_proxy_config(self._folder / "proxy.conf", self._kind, "0.0.0.0:8080", replicas)


@contextmanager
def container_fleet(kind: str, store: Path, folder: Path, image: str) -> Iterator[Fleet]:
    """Yield three replicas of an image and a proxy that are not started; remove all of them."""
    home = folder / "proxy"
    home.mkdir()
    subprocess.run(["chmod", "-R", "a+rX", str(store)], check=True)
    docker("build", "--quiet", "--tag", PROXY_IMAGE, "-", text=PROXY_DOCKERFILE)
    replicas = [ReplicaContainer(image, store, number) for number in (1, 2, 3)]
    proxy = ProxyContainer(kind, home)
    docker("network", "create", "--subnet", f"{SUBNET}.0/24", NETWORK)
    try:
        yield Fleet(replicas, proxy)
    finally:
        docker("rm", "--force", proxy.name, *(replica.name for replica in replicas))
        docker("network", "rm", NETWORK)
