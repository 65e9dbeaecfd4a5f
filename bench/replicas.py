"""Three replicas behind a proxy, under load: what is lost if they restart, die, freeze or go.

    python -m bench.replicas nginx|haproxy [--rate 10] [--containers IMAGE]

The replicas are plain processes of this machine, or containers, with a made model. The proxy is
Debian's with the configuration of deploy/proxy/. Each request is sent once; lost is one without an
answer, or with one over 499. A proxy multiplies refusals if the replicas refused more than the
client saw.
"""

import argparse
import asyncio
import re
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.replica_containers import container_fleet
from bench.replica_places import Fleet, Proxy, Replica
from bench.replica_processes import process_fleet
from tests.bundles import write_made_bundle
from tests.factories import chest, make_png

RADIOGRAPH = make_png(chest(96, 96))
FREEZE_S = 8.0


@dataclass(frozen=True)
class Outcome:
    """What became of the requests of one experiment."""

    name: str
    statuses: Counter[int]
    """Answers by status; 0 for none."""
    errors: Counter[str]
    """What happened to requests without an answer."""

    @property
    def num_lost(self) -> int:
        return sum(count for status, count in self.statuses.items() if not 0 < status < 500)

    def __str__(self) -> str:
        seen = [f"{num} x {what}" for what, num in (*self.statuses.items(), *self.errors.items())]
        return f"{self.name}: lost {self.num_lost} of {self.statuses.total()}: {', '.join(seen)}"


@dataclass(frozen=True)
class Storm:
    """What became of far more requests than can be answered."""

    refusal: str
    statuses: Counter[int]
    num_made: int
    """Refusals that the replicas counted."""

    @property
    def factor(self) -> float:
        """Refusals that the replicas made for each one that a client saw."""
        refused = sum(count for status, count in self.statuses.items() if status >= 429)
        return self.num_made / max(1, refused)

    def __str__(self) -> str:
        return (f"storm, refusals {self.refusal}: {dict(self.statuses)}, {self.num_made} made: "
                f"x{self.factor:.2f}")  # fmt: skip


@asynccontextmanager
async def load(port: int, rate: float, name: str) -> AsyncIterator[Outcome]:
    """Send requests at a steady rate while the block runs; count their answers."""
    outcome = Outcome(name, Counter(), Counter())
    sent: set[asyncio.Task[None]] = set()
    stop = asyncio.Event()

    async def send(client: httpx.AsyncClient) -> None:
        try:
            answer = await client.post(f"http://127.0.0.1:{port}/predict", content=RADIOGRAPH)
            outcome.statuses[answer.status_code] += 1
        except httpx.HTTPError as error:
            outcome.statuses[0] += 1
            outcome.errors[type(error).__name__] += 1

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
        yield outcome
    finally:
        stop.set()
        await pumping


Step = Callable[[Proxy, Sequence[Replica]], Awaitable[None]]


async def restart_each(_proxy: Proxy, replicas: Sequence[Replica]) -> None:
    for replica in replicas:
        await replica.end()
        await replica.start()
        await asyncio.sleep(2)


async def kill_one(_proxy: Proxy, replicas: Sequence[Replica]) -> None:
    await asyncio.sleep(2)
    await replicas[0].signal("KILL")
    await asyncio.sleep(5)
    await replicas[0].start()


async def freeze_one(_proxy: Proxy, replicas: Sequence[Replica]) -> None:
    await asyncio.sleep(2)
    await replicas[1].signal("STOP")
    await asyncio.sleep(FREEZE_S)
    await replicas[1].signal("CONT")
    await asyncio.sleep(4)


async def scale(proxy: Proxy, replicas: Sequence[Replica]) -> None:
    """1 to 3 to 1, as endpoints change: the proxy is told first that a replica leaves."""
    await proxy.reload(replicas[:1])
    await asyncio.sleep(2)
    await asyncio.gather(*(replica.end() for replica in replicas[1:]))
    await asyncio.sleep(3)
    await asyncio.gather(*(replica.start() for replica in replicas[1:]))
    await proxy.reload(replicas)
    await asyncio.sleep(4)
    await proxy.reload(replicas[:1])
    await asyncio.sleep(2)
    await asyncio.gather(*(replica.end() for replica in replicas[1:]))
    await asyncio.sleep(2)
    await asyncio.gather(*(replica.start() for replica in replicas[1:]))
    await proxy.reload(replicas)
    await asyncio.sleep(2)


STEPS: dict[str, Step] = {
    "rolling restart": restart_each,
    "kill -9 of one": kill_one,
    f"one frozen for {FREEZE_S:g} s": freeze_one,
    "1 to 3 to 1 replicas": scale,
}


async def storm(fleet: Fleet, refusal: str) -> Storm:
    """Send far more than can be answered, to replicas that refuse with this status."""
    replicas = fleet.replicas
    await asyncio.gather(*(replica.end() for replica in replicas))
    for replica in replicas:
        replica.settings.update(CXR_QUEUE_CAPACITY="1", CXR_OVERLOAD_STATUS=refusal)
    await asyncio.gather(*(replica.start() for replica in replicas))
    await asyncio.sleep(3)
    before = sum([await num_refused(replica) for replica in replicas])
    statuses: Counter[int] = Counter()
    ends = time.monotonic() + 6

    async def sender(client: httpx.AsyncClient) -> None:
        while time.monotonic() < ends:
            answer = await client.post(
                f"http://127.0.0.1:{fleet.proxy.port}/predict", content=RADIOGRAPH
            )
            statuses[answer.status_code] += 1

    async with httpx.AsyncClient(timeout=60, headers={"content-type": "image/png"}) as client:
        await asyncio.gather(*(sender(client) for _ in range(40)))
    after = sum([await num_refused(replica) for replica in replicas])
    return Storm(refusal, statuses, after - before)


async def num_refused(replica: Replica) -> int:
    """Return how many requests a replica has refused for load since it started."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{replica.url}/metrics")).text
    found = re.search(r'cxr_rejections_total{reason="overloaded"} (\S+)', text)
    return int(float(found[1])) if found else 0


async def experiments(fleet: Fleet, rate: float) -> AsyncIterator[Outcome | Storm]:
    """Try each disturbance, then storms of requests; yield what came of each."""
    await asyncio.gather(*(replica.start() for replica in fleet.replicas))
    await fleet.proxy.start(fleet.replicas)
    for name, step in STEPS.items():
        async with load(fleet.proxy.port, rate, name) as outcome:
            await step(fleet.proxy, fleet.replicas)
        yield outcome
    for refusal in ("429", "503"):
        yield await storm(fleet, refusal)


def try_proxy(kind: str, rate: float, image: str | None) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)  # containers run as another user
        store = folder / "store"
        write_made_bundle(store, "bright", 1)
        fleets = container_fleet(kind, store, folder, image) if image else None
        with fleets or process_fleet(kind, store, folder) as fleet:
            asyncio.run(show(fleet, kind, rate))


async def show(fleet: Fleet, kind: str, rate: float) -> None:
    async for result in experiments(fleet, rate):
        print(f"{kind}: {result}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("proxy", choices=("nginx", "haproxy"))
    parser.add_argument("--rate", type=float, default=10.0, help="requests a second")
    parser.add_argument("--containers", metavar="IMAGE", help="run this image, not processes")
    options = parser.parse_args()
    try_proxy(options.proxy, options.rate, options.containers)


if __name__ == "__main__":
    main()
