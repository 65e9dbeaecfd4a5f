"""What a saturating stream of `x-priority: bulk` costs a live client: rounds with and without it.

python -m bench.priority [--rounds 6] [--seconds 10] [--rate 4]
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import httpx

from cxr.phantom import phantom_dicom
from tests.server import running_server

ROOT = Path(__file__).parent.parent
RADIOGRAPH = phantom_dicom(512)
NUM_BULK_CLIENTS = 8


async def live(client: httpx.AsyncClient, seconds: float, rate: float) -> list[float]:
    """Send requests at a steady rate; return the seconds that each answer took."""
    took: list[float] = []

    async def send() -> None:
        started = time.perf_counter()
        (await client.post("/predict", content=RADIOGRAPH)).raise_for_status()
        took.append(time.perf_counter() - started)

    sent = []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        sent.append(asyncio.create_task(send()))
        await asyncio.sleep(1 / rate)
    await asyncio.gather(*sent)
    return took


async def bulk(client: httpx.AsyncClient, stop: asyncio.Event) -> int:
    """Send bulk requests one after the other until told to stop; return how many were answered."""
    answered = 0
    while not stop.is_set():
        answer = await client.post("/predict", content=RADIOGRAPH, headers={"x-priority": "bulk"})
        answered += answer.status_code == 200
    return answered


async def compare(url: str, rounds: int, seconds: float, rate: float) -> None:
    headers = {"content-type": "application/dicom"}
    alone: list[float] = []
    beside: list[float] = []
    num_bulk = 0
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
        await live(client, 3, rate)
        for _ in range(rounds):
            alone += await live(client, seconds, rate)
            stop = asyncio.Event()
            streams = [asyncio.create_task(bulk(client, stop)) for _ in range(NUM_BULK_CLIENTS)]
            beside += await live(client, seconds, rate)
            stop.set()
            num_bulk += sum(await asyncio.gather(*streams))
    for name, took in (("alone", alone), ("beside bulk", beside)):
        cuts = statistics.quantiles(took, n=100)
        print(f"{name}: {len(took)} answers, p50 {1000 * cuts[49]:.0f} ms, p90 "
              f"{1000 * cuts[89]:.0f} ms, p99 {1000 * cuts[98]:.0f} ms")  # fmt: skip
    print(f"bulk: {num_bulk / rounds / seconds:.1f} answers a second")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=float, default=4)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as scratch,
        running_server(ROOT / "model_store", Path(scratch) / "log") as server,
    ):
        asyncio.run(compare(server.url, options.rounds, options.seconds, options.rate))


if __name__ == "__main__":
    main()
