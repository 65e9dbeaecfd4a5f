"""What a running server is put through in each round, and the figures that come of it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figures, goodput, percentile
from bench.openloop import Connections, Tally, Target, closed_loop, open_loop, storm
from bench.servers import Running
from bench.uploads import Upload

DEADLINE_S = 0.5
PATIENCE_S = 30.0
STORM_S = 3.0
STORM_SIZE = 64
STORM_PATIENCE_S = 0.3
HASTY_PATIENCE_S = 0.05
"""Clients that leave six times as soon come six times as often: more connections than a server can
even read."""
CONNECTIONS = (1, 16, 64)
LOADS = (0.5, 0.8, 1.0, 1.5, 3.0)
OUR_LOADS = (0.5, 0.6, 0.8, 1.0, 1.5, 3.0)
REFUSED = (503, 429)
STAGES = ("receive", "decode", "preprocess", "queue", "run", "interpret")


@dataclass
class Costs:
    """What a phase took of the processors, while it lasted."""

    server_s: float = 0.0
    generator_s: float = 0.0
    duration_s: float = 0.0


async def whole_round(served: Running, upload: Upload, *, seconds: float) -> Figures:
    """Put a server through everything, from one connection to a storm."""
    figures = {"ready_s": served.ready_s}
    await closed_loop(served.upload(upload), connections=2, seconds=1.0)
    for connections in CONNECTIONS:
        figures |= await closed_phase(served, served.upload(upload), connections, seconds)
    for load in OUR_LOADS if served.server.is_ours else LOADS:
        figures |= await open_phase(served, upload, load, figures["c16_per_s"], seconds)
    figures["memory_mb"] = served.processes.resident_mb()
    target = served.upload(upload)
    figures["storm_s"] = await storm(
        target, abandoned=STORM_SIZE, seconds=STORM_S, patience_s=STORM_PATIENCE_S
    )
    if served.server.is_ours:
        figures["hasty_storm_s"] = await storm(
            target, abandoned=STORM_SIZE, seconds=STORM_S, patience_s=HASTY_PATIENCE_S
        )
    return figures


async def closed_phase(
    served: Running, target: Target, connections: int, seconds: float, prefix: str = ""
) -> Figures:
    """Ask over some connections, on each again as soon as it was answered."""
    marker, costs = log_end(served), Costs()
    async with costing(served, costs):
        tally = await closed_loop(target, connections=connections, seconds=seconds)
    good = tally.seconds.get(200, [])
    name = f"{prefix}c{connections}"
    figures = {
        f"{name}_per_s": len(good) / costs.duration_s,
        f"{name}_p50_ms": 1000 * percentile(good, 0.5),
        f"{name}_p99_ms": 1000 * percentile(good, 0.99),
        f"{name}_cpu_ms": 1000 * costs.server_s / max(1, len(good)),
        f"{name}_generator_share": costs.generator_s / costs.duration_s,
    }
    return figures | (stage_figures(served, marker, name) if served.server.is_ours else {})


async def open_phase(
    served: Running, upload: Upload, load: float, capacity: float, seconds: float
) -> Figures:
    """Ask at Poisson times, at a multiple of what the server can do, and ask for its health
    meanwhile."""
    marker, costs, health = log_end(served), Costs(), Tally()
    target = served.upload(upload, deadline_s=DEADLINE_S)
    async with costing(served, costs), probing(served.health(), health):
        tally, idle_s = await open_loop(
            target, rate=load * capacity, seconds=seconds, patience_s=PATIENCE_S
        )
    good = tally.seconds.get(200, [])
    refused = [second for status in REFUSED for second in tally.seconds.get(status, [])]
    name = f"x{load:g}"
    return {
        f"{name}_good_share": goodput(good, deadline_s=DEADLINE_S, duration_s=seconds) / capacity,
        f"{name}_p50_ms": 1000 * percentile(good, 0.5),
        f"{name}_p99_ms": 1000 * percentile(good, 0.99),
        f"{name}_refused": float(len(refused)),
        f"{name}_broken": float(len(tally.seconds.get(0, [])) + len(tally.seconds.get(408, []))),
        f"{name}_refused_p99_ms": 1000 * percentile(refused, 0.99),
        f"{name}_refused_in_server_p99_ms": in_server_ms(served, marker, 503),
        f"{name}_health_p99_ms": 1000 * percentile(health.seconds.get(200, []), 0.99),
        f"{name}_idle_s": idle_s,
        f"{name}_generator_share": costs.generator_s / costs.duration_s,
    }


@asynccontextmanager
async def costing(served: Running, costs: Costs) -> AsyncIterator[None]:
    """Note what the block costs, the server and this process."""
    server_s, generator_s, started = (
        served.processes.cpu_s(),
        time.process_time(),
        time.perf_counter(),
    )
    yield
    costs.duration_s = time.perf_counter() - started
    costs.generator_s = time.process_time() - generator_s
    costs.server_s = served.processes.cpu_s() - server_s


@asynccontextmanager
async def probing(target: Target, tally: Tally) -> AsyncIterator[None]:
    """Ask for something small, twenty times a second, while the block runs."""

    async def repeat() -> None:
        pool = Connections(target)
        while True:
            started = time.perf_counter()
            tally.add(await pool.ask(PATIENCE_S), time.perf_counter() - started)
            await asyncio.sleep(0.05)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def log_end(served: Running) -> int:
    """Mark where the server's log ends now."""
    return served.processes.log.stat().st_size


def requests_since(log: Path, marker: int) -> list[dict[str, object]]:
    """Read our access lines that were written after a mark."""
    with log.open("rb") as file:
        if marker:  # it may be in the middle of a line
            file.seek(marker - 1)
            file.readline()
        lines = [
            json.loads(line) for line in file if b'"stages_ms"' in line and line.endswith(b"}\n")
        ]
    return [line for line in lines if line["route"] == "/predict"]


def in_server_ms(served: Running, marker: int, status: int) -> float:
    """Give the p99 of our own durations, from headers read to answer sent, of answers with a
    status."""
    if not served.server.is_ours:
        return float("nan")
    lines = requests_since(served.processes.log, marker)
    return percentile(
        [float(str(line["duration_ms"])) for line in lines if line["status"] == status], 0.99
    )


def stage_figures(served: Running, marker: int, name: str) -> Figures:
    """Give the median of each stage of our answers since a mark; what no stage took is
    `respond`."""
    lines = [line for line in requests_since(served.processes.log, marker) if line["status"] == 200]
    stages = [line["stages_ms"] for line in lines if isinstance(line["stages_ms"], dict)]
    figures = {
        f"{name}_{stage}_stage_ms": percentile([took.get(stage, 0.0) for took in stages], 0.5)
        for stage in STAGES
    }
    rest = [
        float(str(line["duration_ms"])) - sum(took.values())
        for line, took in zip(lines, stages, strict=True)
    ]
    return figures | {f"{name}_respond_stage_ms": percentile(rest, 0.5)}
