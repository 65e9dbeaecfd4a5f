"""Clients that send images to a service until a block ends, and the processes that it started."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from tests.factories import chest, make_png
from tests.server import Server

PNG = make_png(chest(64, 64))


def process_ids(server: Server, kind: str) -> list[int]:
    """The processes of a kind that the parent has ever started, in order."""
    lines = [
        json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")
    ]
    return [line["pid"] for line in lines if line["message"] == f"{kind} started"]


@dataclass
class Tally:
    """What senders were told: statuses, and requests that had no answer."""

    answers: list[httpx.Response] = field(default_factory=list)
    lost: int = 0

    def count(self, status: int) -> int:
        return sum(answer.status_code == status for answer in list(self.answers))


@contextmanager
def senders(server: Server, number: int = 4) -> Iterator[Tally]:
    """Send images until the block ends or nobody listens, each over a connection of its own."""
    tally = Tally()
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            try:
                tally.answers.append(post(server))
            except httpx.ConnectError:
                return
            except httpx.TransportError:
                tally.lost += 1
            if tally.answers and tally.answers[-1].status_code == 503:
                time.sleep(0.1)  # of the two seconds that it is told to wait

    threads = [threading.Thread(target=send) for _ in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield tally
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def post(server: Server) -> httpx.Response:
    headers = {"content-type": "image/png", "connection": "close"}
    return httpx.post(f"{server.url}/predict", content=PNG, headers=headers, timeout=120)
