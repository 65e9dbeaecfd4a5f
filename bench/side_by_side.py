"""Which of several ways answers more: all run at once, and are asked in turn, round by round.

    python -m bench.side_by_side                       # the ways that the default is chosen from
    python -m bench.side_by_side ours ours:workers=2   # some of them
    python -m bench.side_by_side --rounds 8 --seconds 5 --connections 16

A way is `ours` with settings after colons (`ours:decode_threads=3:engine_lanes=3`), a peer's name,
or one of the loops that serve nobody: `loop:our_read`, `loop:read_carefully`, `loop:read_leanly`.
Each line gives answers a second, the ratio to the first way in the same rounds with its range, the
processor time of an answer, the cores in use, and the p99 of `/livez` meanwhile.
"""

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from bench.bare_loops import bare_loop
from bench.changes import current_bundle
from bench.figures import percentile
from bench.openloop import Tally, closed_loop
from bench.phases import probing
from bench.processes import ROOT
from bench.servers import Running, Server, all_servers, our_server, running
from bench.uploads import Upload, make_uploads
from cxr.bundle import Bundle

LOOP = "loop:"
WAYS = (
    "ours",
    "ours:decode_threads=3:engine_lanes=3:engine_threads=1",
    "ours:decode_threads=4:engine_lanes=4:engine_threads=1",
    "ours:max_batch=4",
    "ours:workers=2",
    "fastapi_onnx",
    "fastapi_careful",
    "fastapi_plain",
    "loop:our_read",
    "loop:read_carefully",
    "loop:read_leanly",
)


@dataclass(frozen=True)
class Round:
    """What one way did in one round."""

    per_s: float
    cpu_ms: float
    cores: float
    health_p99_ms: float


@dataclass
class Way:
    """One way of answering, and its rounds."""

    name: str
    rounds: list[Round] = field(default_factory=list)

    def median(self, figure: str) -> float:
        return float(statistics.median(getattr(one, figure) for one in self.rounds))

    def ratios(self, base: "Way") -> list[float]:
        """Compare the answers with another way's, round by round."""
        pairs = zip(self.rounds, base.rounds, strict=True)
        return [mine.per_s / max(other.per_s, 1e-9) for mine, other in pairs]

    def line(self, base: "Way") -> str:
        ratios = self.ratios(base)
        return (
            f"| {self.name} | {self.median('per_s'):.1f} | {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}) | {self.median('cpu_ms'):.1f} "
            f"| {self.median('cores'):.2f} | {self.median('health_p99_ms'):.0f} |"
        )


def make_server(name: str, bundle: Bundle, store: Path, folder: Path, peers: Path) -> Server:
    """Return the server of a way; raises `KeyError` for a name that is none."""
    kind, *settings = name.split(":")
    if kind == "ours":
        pairs = dict(setting.split("=", 1) for setting in settings)
        return our_server(store, folder / "cache", bundle.manifest.model, **pairs)
    named = {server.name: server for server in all_servers(bundle, store, folder / "cache", peers)}
    return named[kind]


async def serve_round(served: Running, upload: Upload, connections: int, seconds: float) -> Round:
    """Ask one server over some connections, and for its health meanwhile."""
    health = Tally()
    cpu_s = served.processes.cpu_s()
    began = time.perf_counter()
    async with probing(served.health(), health):
        tally = await closed_loop(served.upload(upload), connections=connections, seconds=seconds)
    took_s = time.perf_counter() - began
    cpu_s = served.processes.cpu_s() - cpu_s
    num_answers = len(tally.seconds.get(200, []))
    return Round(
        num_answers / took_s,
        1000 * cpu_s / max(1, num_answers),
        cpu_s / took_s,
        1000 * percentile(health.seconds.get(200, []), 0.99),
    )


def loop_round(reader: str, bundle: Bundle, file: Path, seconds: float) -> Round:
    """Run a loop that serves nobody."""
    figures = bare_loop(bundle, file, seconds, reader)
    return Round(
        figures["per_s"],
        figures["cpu_ms"],
        figures["per_s"] * figures["cpu_ms"] / 1000,
        float("nan"),
    )


async def measure(arguments: argparse.Namespace, folder: Path) -> list[Way]:
    """Run all ways at once, and ask them in turn, in another order in each round."""
    bundle = current_bundle(arguments.store, arguments.model)
    upload = make_uploads(arguments.data)[0]
    file = folder / "upload"
    file.write_bytes(upload.data)
    ways = {name: Way(name) for name in arguments.ways}
    with ExitStack() as stack:
        served = {
            name: stack.enter_context(
                running(make_server(name, bundle, arguments.store, folder, arguments.peers), upload)
            )
            for name in ways
            if not name.startswith(LOOP)
        }
        for server in served.values():
            await closed_loop(server.upload(upload), connections=4, seconds=1.0)
        for _ in range(arguments.rounds):
            for name in random.sample(list(ways), len(ways)):
                found = (
                    await asyncio.to_thread(
                        loop_round, name.removeprefix(LOOP), bundle, file, arguments.seconds
                    )
                    if name.startswith(LOOP)
                    else await serve_round(
                        served[name], upload, arguments.connections, arguments.seconds
                    )
                )
                ways[name].rounds.append(found)
    return list(ways.values())


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        prog="bench.side_by_side",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("ways", nargs="*", default=list(WAYS))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--data", type=Path, help="a real DICOM file in place of the phantom")
    parser.add_argument("--store", type=Path, default=ROOT / "model_store")
    parser.add_argument("--model", default="pneumothorax")
    peers = os.environ.get("BENCH_PEERS", str(ROOT / ".venv-bench"))
    parser.add_argument("--peers", type=Path, default=Path(peers) / "bin/python")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        ways = uvloop.run(measure(arguments, Path(folder)))
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {arguments.rounds} rounds of "
        f"{arguments.seconds:g} s, {arguments.connections} connections\n"
    )
    print("| way | answers/s | ratio to the first (range) | CPU ms | cores | `/livez` p99 ms |")
    print("|---|---|---|---|---|---|")
    for way in ways:
        print(way.line(ways[0]))


if __name__ == "__main__":
    main()
