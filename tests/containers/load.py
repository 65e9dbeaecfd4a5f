"""A bounded load on a published port of the loopback: a few clients, each with one request at a
time."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

MAX_REQUESTS = 4000


@dataclass
class Tally:
    """What became of the requests of a load."""

    statuses: Counter[int] = field(default_factory=Counter)
    versions: Counter[int] = field(default_factory=Counter)
    wrong: int = 0
    broken: int = 0
    """Requests whose connection ended without an HTTP answer."""
    seconds: float = 0.0

    @property
    def answered(self) -> int:
        return self.statuses.total()


class Load:
    """Clients that post files in turn, and compare each answer with the one the file has by
    itself."""

    def __init__(
        self,
        url: str,
        files: Mapping[str, bytes],
        expected: Mapping[str, float],
        *,
        stop_at_503: bool = False,
        pause_s: float = 0,
    ) -> None:
        self.tally = Tally()
        self._url = url
        self._files = list(files.items())
        self._expected = expected
        self._stop_at_503 = stop_at_503
        self._pause_s = pause_s
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._left = MAX_REQUESTS

    @contextmanager
    def running(self, *, clients: int = 8) -> Iterator[None]:
        """Load the service while the block runs."""
        threads = [
            threading.Thread(target=self._post_until_stopped, args=(number,))
            for number in range(clients)
        ]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
            self.tally.seconds = time.monotonic() - started

    def _post_until_stopped(self, number: int) -> None:
        with httpx.Client(timeout=30) as client:
            turn = number
            while not self._stop.is_set() and self._take():
                name, data = self._files[turn % len(self._files)]
                turn += 1
                if not self._post(client, name, data):
                    return
                time.sleep(self._pause_s)

    def _take(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left >= 0

    def _post(self, client: httpx.Client, name: str, data: bytes) -> bool:
        """Post one file and count its end; false where a client that keeps to the rules sends no
        more."""
        try:
            answer = client.post(
                f"{self._url}/predict",
                content=data,
                headers={"content-type": "application/octet-stream"},
            )
        except httpx.TransportError:
            with self._lock:
                self.tally.broken += 1
            time.sleep(0.05)
            return True
        with self._lock:
            self.tally.statuses[answer.status_code] += 1
            if answer.status_code == 200:
                body = answer.json()
                self.tally.versions[body["model"]["version"]] += 1
                self.tally.wrong += abs(body["probability"] - self._expected[name]) > 1e-5
        return not (self._stop_at_503 and answer.status_code == 503)
