"""How servers bear a machine in bad weather, and how soon they are themselves again.

    python -m bench.weather                    # all servers, about two minutes each
    python -m bench.weather --only ours        # one of them

    stall       all processes of the server are stopped for four seconds
    hogs        eight busy processes run beside it for eight seconds
    slow start  the server starts beside eight busy processes, which then end
    half        all threads of the server are kept on one core of two
    slow disk   the server reads and writes a megabyte a second for eight seconds
    memory      the server starts with a tenth more memory than it had

Uploads come at Poisson times all the while, each with a deadline of half a second
(on a machine that others keep busy, choose a longer one). Recovery is the
time from the end of a disturbance until each further second has 0.9 of the answers that were due.
After each disturbance comes a pause and one upload more: an idle server must answer it.

The last two need root and control groups of version 1; else their rows are empty. A jump of the
clock is not here: a time namespace sets a clock before its first process starts, and the system's
clock belongs to all programs of the machine.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import uvloop

from bench.changes import current_bundle
from bench.confinement import control_group, inside, slow_disk
from bench.disturbances import HOGS_S, STALL_S, crowded, hogs, restrict, stalled
from bench.figures import Figures, poisson_times
from bench.openloop import Connections, Target, closed_loop
from bench.processes import MEBIBYTE, ROOT, DidNotStart
from bench.servers import Running, Server, all_servers, running
from bench.uploads import Upload, make_uploads
from bench.weather_table import table

DEADLINE_S = 0.5
CALM_S = 4.0
"""Before a disturbance."""

AFTER_S = 12.0
"""After a disturbance: what is not over by then counts as this long."""

WINDOW_S = 1.0
STEP_S = 0.25
GOOD_SHARE = 0.9
ONE_CORE = 1
MEMORY_SHARE = 1.1


@dataclass(frozen=True)
class Answer:
    """One request: when it was due, its status, and its seconds."""

    due: float
    status: int
    seconds: float
    deadline_s: float = DEADLINE_S

    @property
    def is_in_time(self) -> bool:
        return self.status == 200 and self.seconds <= self.deadline_s


@dataclass(frozen=True)
class Terms:
    """What is asked of a server: uploads a second, and the seconds in which each is to be
    answered."""

    rate: float
    deadline_s: float


@dataclass
class Stream:
    """Uploads at Poisson times, until it is stopped."""

    target: Target
    terms: Terms
    answers: list[Answer] = field(default_factory=list)

    async def run(self, seconds: float) -> None:
        """Send for so long, and wait for the last answer."""
        pool = Connections(self.target)
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for due_s in poisson_times(self.terms.rate, seconds, seed=1):
                await asyncio.sleep(started + due_s - time.perf_counter())
                group.create_task(self._ask(pool, started + due_s))
        pool.close()

    async def _ask(self, pool: Connections, due: float) -> None:
        try:
            status = await pool.ask(10.0)
        except OSError:
            status = 0
        self.answers.append(Answer(due, status, time.perf_counter() - due, self.terms.deadline_s))


def recovery_s(answers: list[Answer], ended: float) -> float:
    """Return the seconds after a time until every later window has its share of good answers."""
    recovered = 0.0
    num_steps = int((AFTER_S - WINDOW_S) / STEP_S)
    for number in range(num_steps):
        begin = ended + number * STEP_S
        due = [answer for answer in answers if begin <= answer.due < begin + WINDOW_S]
        if sum(answer.is_in_time for answer in due) < GOOD_SHARE * len(due):
            recovered = (number + 1) * STEP_S
    return recovered


async def is_answered_when_idle(served: Running, upload: Upload, terms: Terms) -> bool:
    """Let the server rest, and ask once."""
    await asyncio.sleep(2.0)
    pool = Connections(served.upload(upload, deadline_s=terms.deadline_s))
    status = await pool.ask(10.0)
    pool.close()
    return status == 200


async def disturb(served: Running, upload: Upload, terms: Terms, name: str) -> Figures:
    """Send uploads before, in and after a disturbance."""
    disturbance, seconds = {"stall": (stalled, STALL_S), "hogs": (crowded, HOGS_S)}[name]
    stream = Stream(served.upload(upload, deadline_s=terms.deadline_s), terms)
    sending = asyncio.create_task(stream.run(CALM_S + seconds + AFTER_S))
    await asyncio.sleep(CALM_S)
    await disturbance(served)
    ended = time.perf_counter()
    await sending
    return {
        f"{name}_recovery_s": recovery_s(stream.answers, ended),
        f"{name}_idle_answers": float(await is_answered_when_idle(served, upload, terms)),
    }


async def slow_start(server: Server, upload: Upload, terms: Terms) -> Figures:
    """Start a server beside busy processes, and send uploads when they have ended."""
    crowd = hogs()
    crowd.__enter__()
    is_over = False
    try:
        with running(server, upload) as served:
            stream = Stream(served.upload(upload, deadline_s=terms.deadline_s), terms)
            sending = asyncio.create_task(stream.run(CALM_S + AFTER_S))
            await asyncio.sleep(CALM_S)
            crowd.__exit__(None, None, None)
            is_over = True
            ended = time.perf_counter()
            await sending
            return {"slow_start_recovery_s": recovery_s(stream.answers, ended)}
    finally:
        if not is_over:
            crowd.__exit__(None, None, None)


async def half_the_cores(served: Running, upload: Upload, terms: Terms, capacity: float) -> Figures:
    """Keep the server on one core, and ask for 1.5 times what that one can answer."""
    cores = sorted(os.sched_getaffinity(0))
    restrict(served, cores[:ONE_CORE])
    stream = Stream(
        served.upload(upload, deadline_s=terms.deadline_s),
        replace(terms, rate=0.75 * capacity),
    )
    started = time.perf_counter()
    await stream.run(CALM_S + AFTER_S)
    restrict(served, cores)
    begin = started + CALM_S
    good = sum(answer.is_in_time for answer in stream.answers if answer.due >= begin)
    return {"half_goodput_share": good / AFTER_S / (capacity * ONE_CORE / len(cores))}


async def slow_disk_weather(server: Server, upload: Upload, terms: Terms, store: Path) -> Figures:
    """Send uploads while the server's disk is slow, and the store has left the page cache."""
    with control_group("blkio") as group:
        if group is None:
            return {}
        with running(inside(server, group), upload) as served:
            await closed_loop(served.upload(upload), connections=2, seconds=1.0)
            stream = Stream(served.upload(upload, deadline_s=terms.deadline_s), terms)
            sending = asyncio.create_task(stream.run(CALM_S + HOGS_S + AFTER_S))
            await asyncio.sleep(CALM_S)
            began = time.perf_counter()
            with slow_disk(group, store):
                await asyncio.sleep(HOGS_S)
            ended = time.perf_counter()
            await sending
            due = [answer for answer in stream.answers if began <= answer.due < ended]
            return {
                "slow_disk_goodput": sum(answer.is_in_time for answer in due) / max(1, len(due)),
                "slow_disk_recovery_s": recovery_s(stream.answers, ended),
            }


async def little_memory(
    server: Server, upload: Upload, resident_mb: float, per_s: float, seconds: float = 3.0
) -> Figures:
    """Start the server in a group that allows little more memory than it had, and ask."""
    with control_group("memory") as group:
        if group is None or not per_s:
            return {}
        group.set("memory.limit_in_bytes", str(round(MEMORY_SHARE * resident_mb * MEBIBYTE)))
        with running(inside(server, group), upload) as served:
            tally = await closed_loop(served.upload(upload), connections=16, seconds=seconds)
            answers = len(tally.seconds.get(200, []))
            return {"little_memory_ratio": answers / seconds / per_s}


async def closed_rates(served: Running, upload: Upload, terms: Terms, seconds: float) -> Figures:
    """Ask over sixteen connections without a deadline and with one, in turn."""
    rates: dict[str, list[float]] = {"plain": [], "deadline": []}
    for _ in range(3):
        for name, deadline_s in (("plain", None), ("deadline", terms.deadline_s)):
            target = served.upload(upload, deadline_s=deadline_s)
            tally = await closed_loop(target, connections=16, seconds=seconds)
            rates[name].append(len(tally.seconds.get(200, [])) / seconds)
    plain = sorted(rates["plain"])[1]
    ratios = [two / one for one, two in zip(rates["plain"], rates["deadline"], strict=True) if one]
    return {"c16_per_s": plain, "c16_deadline_ratio": sorted(ratios)[len(ratios) // 2]}


async def whole_weather(server: Server, upload: Upload, terms: Terms, store: Path) -> Figures:
    """Put one server through everything."""
    figures: Figures = {}
    with running(server, upload) as served:
        await closed_loop(served.upload(upload), connections=2, seconds=1.0)
        figures |= await closed_rates(served, upload, terms, 3.0)
        for name in ("stall", "hogs"):
            figures |= await disturb(served, upload, terms, name)
        figures |= await half_the_cores(served, upload, terms, figures["c16_per_s"])
        resident_mb = served.processes.resident_mb()
    figures |= await slow_disk_weather(server, upload, terms, store)
    figures |= await little_memory(server, upload, resident_mb, figures["c16_per_s"])
    return figures | await slow_start(server, upload, terms)


async def measure(arguments: argparse.Namespace, cache: Path) -> dict[str, Figures]:
    """Measure each server in turn."""
    bundle = current_bundle(arguments.store, arguments.model)
    upload = make_uploads(arguments.data)[0]
    terms = Terms(arguments.rate, arguments.deadline)
    found: dict[str, Figures] = {}
    for server in all_servers(bundle, arguments.store, cache, arguments.peers):
        if arguments.only and server.name not in arguments.only:
            continue
        try:
            found[server.name] = await whole_weather(server, upload, terms, arguments.store)
        except (DidNotStart, OSError, ExceptionGroup) as error:
            print(f"{server.name}: {type(error).__name__}: {error}", flush=True)
            continue
        print(json.dumps({server.name: found[server.name]}), flush=True)
    return found


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        prog="bench.weather",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", help="names of servers, as in ours fastapi_careful")
    parser.add_argument("--rate", type=float, default=10.0, help="uploads a second (10)")
    parser.add_argument("--deadline", type=float, default=DEADLINE_S, help="in seconds (0.5)")
    parser.add_argument("--data", type=Path, help="a real DICOM file in place of the phantom")
    parser.add_argument("--store", type=Path, default=ROOT / "model_store")
    parser.add_argument("--model", default="pneumothorax")
    peers = os.environ.get("BENCH_PEERS", str(ROOT / ".venv-bench"))
    parser.add_argument("--peers", type=Path, default=Path(peers) / "bin/python")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        found = uvloop.run(measure(arguments, Path(folder)))
    print(table(found))


if __name__ == "__main__":
    main()
