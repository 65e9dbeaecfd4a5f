"""What the experiments with replicas need of the place in which replicas and proxy run."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx

PROXIES = Path(__file__).parent.parent / "deploy/proxy"

SETTINGS: Mapping[str, str] = {
    "CXR_DEFAULT_MODEL": "bright", "CXR_DRAIN_SECONDS": "2", "CXR_OVERLOAD_STATUS": "429",
    "CXR_CACHE_DIR": "/nonexistent", "CXR_ENGINE_LANES": "1", "CXR_ENGINE_THREADS": "1",
    "CXR_MAX_BATCH": "4", "CXR_DECODE_WORKERS": "1",
}  # fmt: skip
"""Of each replica: small, so that three fit on a machine with two cores."""


class Replica(Protocol):
    """One service among several."""

    settings: dict[str, str]

    @property
    def address(self) -> str:
        """Host and port as the proxy reaches it."""

    @property
    def url(self) -> str:
        """As this process reaches it."""

    async def start(self) -> None:
        """Start it, and wait until it answers."""

    async def signal(self, name: str) -> None:
        """Send a signal, as `KILL`."""

    async def end(self) -> None:
        """End it as an orchestrator does, and wait."""


class Proxy(Protocol):
    """nginx or HAProxy before the replicas."""

    port: int
    """Of the loopback."""

    async def start(self, replicas: Sequence[Replica]) -> None:
        """Start with these replicas."""

    async def reload(self, replicas: Sequence[Replica]) -> None:
        """Go on with these replicas."""


@dataclass(frozen=True)
class Fleet:
    """Three replicas and their proxy."""

    replicas: Sequence[Replica]
    proxy: Proxy


def write_proxy_config(file: Path, kind: str, listen: str, replicas: Sequence[Replica]) -> None:
    """Write the configuration of deploy/proxy/ with another address and other replicas."""
    text = (PROXIES / ("nginx.conf" if kind == "nginx" else "haproxy.cfg")).read_text()
    line = {
        "nginx": "        server {address} max_fails=3 fail_timeout=2s;",
        "haproxy": "    server r{number} {address}",
    }[kind]
    servers = "\n".join(
        line.format(address=replica.address, number=number)
        for number, replica in enumerate(replicas, start=1)
    )
    text = re.sub(r"(# REPLICAS[^\n]*\n)[^\n]*", rf"\1{servers}", text)
    file.write_text(text.replace("127.0.0.1:8080", listen))


async def until_ready(url: str) -> None:
    """Wait until a replica is ready; raise `TimeoutError` after two minutes."""
    async with httpx.AsyncClient() as client:
        for _ in range(1200):
            with suppress(httpx.TransportError):
                if (await client.get(f"{url}/readyz")).status_code == 200:
                    return
            await asyncio.sleep(0.1)
    raise TimeoutError("a replica did not become ready")
