"""Three replicas behind a proxy, under load: what is lost if they restart, die, freeze or go.

    python -m bench.replicas nginx|haproxy [--rate 10]

The replicas are plain processes of this machine with a made model, and the proxy is Debian's with
the configuration of deploy/proxy/. Each request is sent once; lost is one without an answer, or
with one over 499. A proxy multiplies refusals if the replicas refused more than the client saw.
"""

import argparse
import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.bundles import write_made_bundle
from tests.factories import chest, make_png
from tests.server import free_port

ROOT = Path(__file__).parent.parent
PROXIES = ROOT / "deploy/proxy"
RADIOGRAPH = make_png(chest(96, 96))
FREEZE_S = 8.0


@dataclass
class Replica:
    """One process of the service."""

    store: Path
    port: int = field(default_factory=free_port)
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start the process, and wait until it answers."""
        settings = {
            "CXR_STORE": self.store, "CXR_PORT": self.port, "CXR_DEFAULT_MODEL": "bright",
            "CXR_DRAIN_SECONDS": 2, "CXR_OVERLOAD_STATUS": 429, "CXR_CACHE_DIR": "/nonexistent",
            "CXR_ENGINE_LANES": 1, "CXR_ENGINE_THREADS": 1, "CXR_MAX_BATCH": 4,
            "CXR_DECODE_WORKERS": 1, **self.settings,
        }  # fmt: skip
        environment = {**os.environ, **{name: str(value) for name, value in settings.items()}}
        self.process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
            [sys.executable, "-m", "app"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
        )
        async with httpx.AsyncClient() as client:
            for _ in range(1200):
                with suppress(httpx.TransportError):
                    if (await client.get(f"{self.url}/readyz")).status_code == 200:
                        return
                await asyncio.sleep(0.1)
        raise TimeoutError("a replica did not become ready")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def send(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def end(self) -> None:
        """End the process as an orchestrator does, and wait."""
        self.send(signal.SIGTERM)
        assert self.process is not None
        await asyncio.to_thread(self.process.wait)

    async def refused(self) -> int:
        """Return how many requests it has refused for load."""
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"{self.url}/metrics")).text
        found = re.search(r'cxr_rejections_total{reason="overloaded"} (\S+)', text)
        return int(float(found[1])) if found else 0


class Proxy:
    """nginx or HAProxy, with the replicas that it knows now."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, replicas: list[Replica]) -> None:
        self._write(replicas)
        words = {
            "nginx": ["nginx", "-p", str(self._folder), "-c", "proxy.conf", "-g", "daemon off;"],
            "haproxy": ["haproxy", "-W", "-f", str(self._folder / "proxy.conf")],
        }[self.kind]
        self._process = subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(2)

    def reload(self, replicas: list[Replica]) -> None:
        self._write(replicas)
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP if self.kind == "nginx" else signal.SIGUSR2)

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait()

    def _write(self, replicas: list[Replica]) -> None:
        name = "nginx.conf" if self.kind == "nginx" else "haproxy.cfg"
        text = (PROXIES / name).read_text()
        lines = {
            "nginx": "        server 127.0.0.1:{port} max_fails=1 fail_timeout=2s;",
            "haproxy": "    server r{port} 127.0.0.1:{port}",
        }[self.kind]
        servers = "\n".join(lines.format(port=replica.port) for replica in replicas)
        text = re.sub(r"(# REPLICAS[^\n]*\n)[^\n]*", rf"\1{servers}", text)
        text = text.replace("127.0.0.1:8080", f"127.0.0.1:{self.port}")
        (self._folder / "proxy.conf").write_text(text)


@asynccontextmanager
async def load(port: int, rate: float) -> AsyncIterator[Counter[int]]:
    """Send requests at a steady rate while the block runs; count answers by status, 0 for none."""
    statuses: Counter[int] = Counter()
    sent: set[asyncio.Task[None]] = set()
    stop = asyncio.Event()

    async def send(client: httpx.AsyncClient) -> None:
        try:
            answer = await client.post(f"http://127.0.0.1:{port}/predict", content=RADIOGRAPH)
            statuses[answer.status_code] += 1
        except httpx.HTTPError:
            statuses[0] += 1

    async def pump() -> None:
        async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=64)) as client:
            client.headers["content-type"] = "image/png"
            while not stop.is_set():
                task = asyncio.create_task(send(client))
                sent.add(task)
                task.add_done_callback(sent.discard)
                await asyncio.sleep(1 / rate)
            await asyncio.gather(*sent)

    pumping = asyncio.create_task(pump())
    try:
        yield statuses
    finally:
        stop.set()
        await pumping


Step = Callable[[Proxy, list[Replica]], Awaitable[None]]


async def restart_each(_proxy: Proxy, replicas: list[Replica]) -> None:
    for replica in replicas:
        await replica.end()
        await replica.start()
        await asyncio.sleep(2)


async def kill_one(_proxy: Proxy, replicas: list[Replica]) -> None:
    await asyncio.sleep(2)
    replicas[0].send(signal.SIGKILL)
    await asyncio.sleep(5)
    await replicas[0].start()


async def freeze_one(_proxy: Proxy, replicas: list[Replica]) -> None:
    await asyncio.sleep(2)
    replicas[1].send(signal.SIGSTOP)
    await asyncio.sleep(FREEZE_S)
    replicas[1].send(signal.SIGCONT)
    await asyncio.sleep(4)


async def scale(proxy: Proxy, replicas: list[Replica]) -> None:
    """1 to 3 to 1, as endpoints change: the proxy is told first that a replica leaves."""
    proxy.reload(replicas[:1])
    await asyncio.sleep(2)
    await asyncio.gather(*(replica.end() for replica in replicas[1:]))
    await asyncio.sleep(3)
    await asyncio.gather(*(replica.start() for replica in replicas[1:]))
    proxy.reload(replicas)
    await asyncio.sleep(4)
    proxy.reload(replicas[:1])
    await asyncio.sleep(2)
    await asyncio.gather(*(replica.end() for replica in replicas[1:]))
    await asyncio.sleep(2)
    await asyncio.gather(*(replica.start() for replica in replicas[1:]))
    proxy.reload(replicas)
    await asyncio.sleep(2)


STEPS: dict[str, Step] = {
    "rolling restart": restart_each,
    "kill -9 of one": kill_one,
    f"one frozen for {FREEZE_S:g} s": freeze_one,
    "1 to 3 to 1 replicas": scale,
}


async def storm(proxy: Proxy, replicas: list[Replica]) -> tuple[int, int, int]:
    """Send far more than can be answered.

    Returns:
        The answers, and the refusals as the client and as the replicas counted them.
    """
    before = sum([await replica.refused() for replica in replicas])
    statuses: Counter[int] = Counter()
    ends = time.monotonic() + 6

    async def sender(client: httpx.AsyncClient) -> None:
        while time.monotonic() < ends:
            answer = await client.post(f"http://127.0.0.1:{proxy.port}/predict", content=RADIOGRAPH)
            statuses[answer.status_code] += 1

    async with httpx.AsyncClient(timeout=60, headers={"content-type": "image/png"}) as client:
        await asyncio.gather(*(sender(client) for _ in range(40)))
    print(f"{proxy.kind}: storm: {dict(statuses)}")
    after = sum([await replica.refused() for replica in replicas])
    return statuses[200], statuses[429] + statuses[503] + statuses[502], after - before


async def try_proxy(kind: str, rate: float) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        store, folder = Path(scratch) / "store", Path(scratch) / "proxy"
        folder.mkdir()
        folder.chmod(0o777)
        write_made_bundle(store, "bright", 1)
        replicas = [Replica(store) for _ in range(3)]
        await asyncio.gather(*(replica.start() for replica in replicas))
        proxy = Proxy(kind, folder)
        proxy.start(replicas)
        try:
            for name, step in STEPS.items():
                async with load(proxy.port, rate) as statuses:
                    await step(proxy, replicas)
                lost = sum(count for status, count in statuses.items() if not 0 < status < 500)
                print(
                    f"{kind}: {name}: lost {lost} of {statuses.total()} {dict(statuses)}",
                    flush=True,
                )
            for status in ("429", "503"):
                await asyncio.gather(*(replica.end() for replica in replicas))
                for replica in replicas:
                    replica.settings = {"CXR_QUEUE_CAPACITY": "1", "CXR_OVERLOAD_STATUS": status}
                await asyncio.gather(*(replica.start() for replica in replicas))
                await asyncio.sleep(3)
                answers, seen, made = await storm(proxy, replicas)
                factor = made / max(1, seen)
                print(f"{kind}: storm, refusals {status}: {answers} answers, {seen} refusals seen, "
                      f"{made} made: x{factor:.2f}", flush=True)  # fmt: skip
        finally:
            proxy.stop()
            for replica in replicas:
                if replica.process is not None:
                    replica.process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("proxy", choices=("nginx", "haproxy"))
    parser.add_argument("--rate", type=float, default=10.0, help="requests a second")
    options = parser.parse_args()
    asyncio.run(try_proxy(options.proxy, options.rate))


if __name__ == "__main__":
    main()
