"""Load on a service over raw sockets: closed loop, open loop (Poisson), and a storm of uploads that
are given up.

    python -m bench.openloop URL FILE --closed 16              # capacity: 16 connections, one
                                                               request after the other
    python -m bench.openloop URL FILE --rate 120               # goodput: arrivals do not wait for
                                                               answers
    python -m bench.openloop URL FILE --storm 64               # 64 at a time are given up after 50
                                                               ms, then one probe

A request counts as good when its 200 is there within the deadline, counted from when it was due, so
that a stalled generator can't flatter the service.  The generator shares the machine: it is as
cheap as Python lets it be."""

import argparse
import asyncio
import json
import time
import urllib.parse
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import cast

import httptools
import uvloop

from bench.figures import percentile, poisson_times

BOUNDARY = "openloop"


@dataclass(frozen=True)
class Target:
    """Where requests go, and their bytes, built once."""

    host: str
    port: int
    request: bytes


@dataclass
class Tally:
    """What came back: seconds by status; 0 stands for a connection that broke, 408 for patience
    that ended."""

    seconds: dict[int, list[float]] = field(default_factory=dict)

    def add(self, status: int, seconds: float) -> None:
        self.seconds.setdefault(status, []).append(seconds)

    def good(self, deadline_s: float) -> int:
        return sum(seconds <= deadline_s for seconds in self.seconds.get(200, ()))

    def percentile_ms(self, status: int, share: float) -> float | None:
        values = self.seconds.get(status, [])
        return round(1000 * percentile(values, share), 1) if values else None

    def counts(self) -> dict[int, int]:
        return dict(Counter({status: len(values) for status, values in self.seconds.items()}))


class Exchange(asyncio.Protocol):
    """One connection, kept alive, with one request on it at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.parser = httptools.HttpResponseParser(self)
        self.answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(
            "asyncio.Transport", transport
        )  # uvloop's is one without being of its class

    def ask(self, request: bytes) -> asyncio.Future[int]:
        assert self.transport is not None
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.answer

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        status, keeps = self.parser.get_status_code(), self.parser.should_keep_alive()
        self.parser = httptools.HttpResponseParser(self)
        if not keeps and self.transport is not None:
            self.transport.close()
        self._settle(status)

    def connection_lost(self, _exc: Exception | None) -> None:
        self.transport = None
        self._settle(0)

    def _settle(self, status: int) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(status)


class Connections:
    """Connections that wait for their next request; a new one is made when none does."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._idle: list[Exchange] = []

    async def ask(self, patience_s: float) -> int:
        exchange = None
        while self._idle and (exchange is None or exchange.transport is None):
            exchange = self._idle.pop()
        if (
            exchange is None or exchange.transport is None
        ):  # none is idle, or all were closed by the service
            exchange = await self._connect()
        try:
            async with asyncio.timeout(patience_s):
                status = await exchange.ask(self._target.request)
        except TimeoutError:
            status = 408
            if exchange.transport is not None:
                exchange.transport.abort()
        if exchange.transport is not None and not exchange.transport.is_closing():
            self._idle.append(exchange)
        return status

    async def _connect(self) -> Exchange:
        loop = asyncio.get_running_loop()
        _, exchange = await loop.create_connection(Exchange, self._target.host, self._target.port)
        return exchange

    def close(self) -> None:
        for exchange in self._idle:
            if exchange.transport is not None:
                exchange.transport.close()


async def closed_loop(target: Target, *, connections: int, seconds: float) -> Tally:
    """Let each connection ask again as soon as it was answered."""
    tally, pool = Tally(), Connections(target)
    end = time.perf_counter() + seconds

    async def repeat() -> None:
        while (started := time.perf_counter()) < end:
            tally.add(await pool.ask(60.0), time.perf_counter() - started)

    await asyncio.gather(*(repeat() for _ in range(connections)))
    pool.close()
    return tally


async def open_loop(
    target: Target, *, rate: float, seconds: float, patience_s: float, seed: int = 1
) -> tuple[Tally, float]:
    """Ask at Poisson times, whatever the answers do; gives also the seconds until the last answer
    after the end."""
    tally, pool, started = Tally(), Connections(target), time.perf_counter()
    asking = set[asyncio.Task[None]]()

    async def ask(due: float) -> None:
        try:
            status = await pool.ask(patience_s)
        except OSError:
            status = 0
        tally.add(status, time.perf_counter() - due)

    for due in (started + due_s for due_s in poisson_times(rate, seconds, seed)):
        await asyncio.sleep(due - time.perf_counter())
        task = asyncio.create_task(ask(due))
        asking.add(task)
        task.add_done_callback(asking.discard)
    ended = time.perf_counter()
    await asyncio.gather(*asking)
    pool.close()
    return tally, time.perf_counter() - ended


async def storm(
    target: Target, *, abandoned: int, seconds: float, patience_s: float = 0.05
) -> float:
    """Give up uploads, so many at a time, then ask once in earnest; gives the seconds until that
    answer."""
    end = time.perf_counter() + seconds

    async def abandon() -> None:
        while time.perf_counter() < end:
            await Connections(target).ask(patience_s)

    await asyncio.gather(*(abandon() for _ in range(abandoned)))
    started = time.perf_counter()
    while await Connections(target).ask(60.0) != 200:  # noqa: ASYNC110 -- what is waited for is in another process
        await asyncio.sleep(0.005)
    return time.perf_counter() - started


def multipart_request(url: str, data: bytes, headers: Mapping[str, str]) -> Target:
    """Build the bytes of one upload as a form has it."""
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    body = part.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()
    return make_request(
        "POST", url, body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", **headers}
    )


def make_request(
    method: str, url: str, body: bytes = b"", headers: Mapping[str, str] = MappingProxyType({})
) -> Target:
    """Build the bytes of any request."""
    place = urllib.parse.urlsplit(url)
    fields = {"Host": place.netloc, "Content-Length": str(len(body)), **headers}
    path = place.path + (f"?{place.query}" if place.query else "")
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in fields.items()
    )
    return Target(place.hostname or "127.0.0.1", place.port or 80, f"{head}\r\n".encode() + body)


async def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Do what the command line asks for."""
    patience_s, deadline_s = arguments.patience, arguments.deadline
    headers = {} if arguments.closed else {"x-request-timeout-seconds": str(deadline_s)}
    target = multipart_request(arguments.url, arguments.file.read_bytes(), headers)
    if arguments.storm:
        return {
            "storm": arguments.storm,
            "probe_s": await storm(target, abandoned=arguments.storm, seconds=arguments.seconds),
        }
    if arguments.closed:
        tally, idle_s = (
            await closed_loop(target, connections=arguments.closed, seconds=arguments.seconds),
            0.0,
        )
    else:
        tally, idle_s = await open_loop(
            target, rate=arguments.rate, seconds=arguments.seconds, patience_s=patience_s
        )
    refused = 429 if 429 in tally.seconds else 503
    return {
        "counts": tally.counts(),
        "good_per_second": round(tally.good(deadline_s) / arguments.seconds, 1),
        "answered_per_second": round(len(tally.seconds.get(200, ())) / arguments.seconds, 1),
        "good_ms": {f"p{share:g}": tally.percentile_ms(200, share / 100) for share in (50, 95, 99)},
        "refused_ms": {
            f"p{share:g}": tally.percentile_ms(refused, share / 100) for share in (50, 99)
        },
        "idle_after_s": round(idle_s, 3),
    }


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url", help="as in http://127.0.0.1:8000/predict")
    parser.add_argument("file", type=Path)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--closed", type=int, metavar="CONNECTIONS")
    mode.add_argument("--rate", type=float, metavar="PER_SECOND")
    mode.add_argument("--storm", type=int, metavar="CONNECTIONS")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument(
        "--deadline", type=float, default=0.5, help="seconds within which an answer is good"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=60.0,
        help="seconds after which an open loop's client leaves",
    )
    print(json.dumps(uvloop.run(measure(parser.parse_args()))))


if __name__ == "__main__":
    main()
