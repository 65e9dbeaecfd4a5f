"""What a saturating stream of `x-priority: bulk` costs a live client: rounds with and without it.

python -m bench.priority [--rounds 6] [--seconds 10] [--rate 8]

A process of the lowest priority sends the stream, as a machine of its own would: its work is not
the service's.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized as ValueOf
from multiprocessing.synchronize import Event
from pathlib import Path

import httpx

from cxr.phantom import phantom_dicom
from tests.server import running_server

ROOT = Path(__file__).parent.parent
RADIOGRAPH = phantom_dicom(512)
NUM_BULK_CLIENTS = 8
HEADERS = {"content-type": "application/dicom"}


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


def send_bulk(url: str, stop: Event, num_answered: "ValueOf[int]") -> None:
    """Send bulk requests by several clients until told to stop; count those that are answered."""
    os.nice(19)
    asyncio.run(_send_bulk(url, stop, num_answered))


async def _send_bulk(url: str, stop: Event, num_answered: "ValueOf[int]") -> None:
    headers = {**HEADERS, "x-priority": "bulk"}

    async def stream(client: httpx.AsyncClient) -> None:
        while not stop.is_set():
            answer = await client.post("/predict", content=RADIOGRAPH)
            num_answered.value += answer.status_code == 200

    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
        await asyncio.gather(*(stream(client) for _ in range(NUM_BULK_CLIENTS)))


async def compare(url: str, rounds: int, seconds: float, rate: float) -> None:
    context = get_context("spawn")
    num_answered = context.Value("i", 0)
    alone: list[float] = []
    beside: list[float] = []
    async with httpx.AsyncClient(base_url=url, headers=HEADERS, timeout=60) as client:
        await live(client, 3, rate)
        for _ in range(rounds):
            alone += await live(client, seconds, rate)
            stop = context.Event()
            sender = context.Process(target=send_bulk, args=(url, stop, num_answered))
            sender.start()
            await live(client, 2, rate)  # until the stream flows
            beside += await live(client, seconds, rate)
            stop.set()
            sender.join()
    for name, took in (("alone", alone), ("beside bulk", beside)):
        cuts = statistics.quantiles(took, n=100)
        print(f"{name}: {len(took)} answers, p50 {1000 * cuts[49]:.0f} ms, p90 "
              f"{1000 * cuts[89]:.0f} ms, p99 {1000 * cuts[98]:.0f} ms")  # fmt: skip
    print(f"bulk: {num_answered.value / rounds / (seconds + 2):.1f} answers a second")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=float, default=8)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as scratch,
        running_server(ROOT / "model_store", Path(scratch) / "log") as server,
    ):
        asyncio.run(compare(server.url, options.rounds, options.seconds, options.rate))


if __name__ == "__main__":
    main()
