"""Measure us and the peers in one go, in turn and in rounds, and write RESULTS.md.

    make bench                 # three rounds, under 45 minutes
    make bench MINUTES=15      # the same in shorter phases
    make bench QUICK=1         # one round, about five minutes

A peer that does not start is reported as such, and the rest goes on.
"""

import argparse
import json
import os
import signal
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import uvloop

from bench.bare_loops import OTHER_READERS, bare_loop
from bench.changes import current_bundle, drains, four_view_store, swaps
from bench.figures import EXTRAS_S, Figures, medians, phase_seconds
from bench.goals import FAST, best_peer
from bench.machine import describe_machine
from bench.phases import closed_phase, whole_round
from bench.plots import draw_plots
from bench.processes import ROOT, DidNotStart
from bench.report import Results, write_report
from bench.servers import Server, all_servers, our_server, running
from bench.uploads import Upload, make_uploads
from cxr.bundle import Bundle

HERE = Path(__file__).parent


@dataclass
class Bench:
    """One run: what is measured, how long, and what was found so far."""

    bundle: Bundle
    store: Path
    uploads: list[Upload]
    servers: list[Server]
    folder: Path
    rounds: int
    seconds: float
    minutes: float
    is_quick: bool
    results: Results
    began: float = field(default_factory=time.monotonic)
    found: defaultdict[str, list[Figures]] = field(default_factory=lambda: defaultdict(list))

    @property
    def reserve_s(self) -> float:
        """Give what is kept for the measurements that only we go through."""
        return EXTRAS_S / 3 if self.is_quick else EXTRAS_S

    @property
    def left_s(self) -> float:
        return 60 * self.minutes - (time.monotonic() - self.began)

    def say(self, what: str) -> None:
        print(f"[{self.left_s / 60:5.1f} min left] {what}", flush=True)

    async def run(self) -> None:
        """Measure everything, in turn."""
        bare = []
        for number in range(self.rounds):
            bare.append(self._bare())
            for server in self.servers:
                if server.name in self.results.failures and not self.found[server.name]:
                    continue
                if self.left_s > self.reserve_s:
                    await self._try(server, f"round {number + 1} of {self.rounds}", self._round)
                else:
                    self.results.failures[server.name] = f"no time was left for round {number + 1}"
        self.results.bare = medians(bare)
        self._settle()
        best = best_peer(self.results.servers)
        for server in self.servers:
            if server.name in ("ours", best):
                await self._try(server, "the other uploads", self._other_uploads)
        self._settle()
        await self._ours_alone()
        self.results.minutes = (time.monotonic() - self.began) / 60

    def _settle(self) -> None:
        found = {server.name: self.found[server.name] for server in self.servers}
        self.results.servers = {name: medians(rounds) for name, rounds in found.items() if rounds}
        self.results.rounds = {name: len(rounds) for name, rounds in self.found.items()}

    async def _try(
        self, server: Server, what: str, measure: Callable[[Server], Awaitable[Figures]]
    ) -> None:
        """Measure a server, and go on without it where that fails."""
        self.say(f"{what}: {server.name}")
        try:
            figures = await measure(server)
        except (
            DidNotStart,
            OSError,
            KeyError,
            ValueError,
            ZeroDivisionError,
            ExceptionGroup,
        ) as error:
            self.results.failures[server.name] = f"{what}: {type(error).__name__}: {error}".replace(
                "\n", " "
            )
            self.say(f"  failed: {self.results.failures[server.name]}")
            return
        self.found[server.name].append(figures)
        if "c16_per_s" in figures:
            told = (
                "c1_p50_ms",
                "c16_per_s",
                "x1.5_good_share",
                "x3_good_share",
                "x3_idle_s",
                "storm_s",
                "memory_mb",
            )
            self.say(
                "  " + ", ".join(f"{name} {figures[name]:.3g}" for name in told if name in figures)
            )

    async def _round(self, server: Server) -> Figures:
        with running(server, self.uploads[0]) as served:
            return await whole_round(served, self.uploads[0], seconds=self.seconds)

    async def _other_uploads(self, server: Server) -> Figures:
        figures: Figures = {}
        with running(server, self.uploads[0]) as served:
            for upload in self.uploads[1:]:
                target = served.upload(upload)
                figures |= await closed_phase(
                    served, target, 16, 2 * self.seconds, prefix=f"{upload.name}_"
                )
        return figures

    async def _ours_alone(self) -> None:
        """Measure starts, four views, swaps and drains; what fails leaves its goal unmeasured."""
        count = 2 if self.is_quick else 5
        self.say("starts, first time and tuned before")
        extras = self._starts()
        for what, measure in (
            ("four views", self._four_views()),
            ("swaps under load", swaps(self.bundle, self.folder, self.uploads[0], count=4 * count)),
            ("drains under load", drains(self.bundle, self.folder, self.uploads[0], count=count)),
        ):
            self.say(what)
            try:
                extras |= await measure
            except (DidNotStart, OSError, ExceptionGroup) as error:
                self.results.failures[what] = f"{type(error).__name__}: {error}".replace("\n", " ")
        self.results.extras = extras

    def _starts(self) -> Figures:
        """Start the whole store with an empty cache, and again with what that start learned."""
        rounds = []
        for number in range(self.rounds):
            server = our_server(
                self.store, self.folder / f"cache-{number}", self.bundle.manifest.model
            )
            with running(server, self.uploads[0]) as first:
                pass
            with running(server, self.uploads[0]) as again:
                pass
            rounds.append({"ready_first_s": first.ready_s, "ready_tuned_s": again.ready_s})
        return medians(rounds)

    async def _four_views(self) -> Figures:
        """Ask for one view and for four in turn."""
        rounds = []
        store = four_view_store(self.bundle, self.folder)
        with running(
            our_server(store, self.folder / "cache", self.bundle.manifest.model), self.uploads[0]
        ) as served:
            for _ in range(self.rounds):
                plain = await closed_phase(
                    served, served.upload(self.uploads[0]), 1, self.seconds, prefix="plain_"
                )
                views = served.upload(self.uploads[0], query="?tta=true")
                rounds.append(
                    plain | await closed_phase(served, views, 1, self.seconds, prefix="tta_")
                )
        return medians(rounds)

    def _bare(self) -> Figures:
        """Run the loops that serve nobody; those of other readers have their names in front."""
        self.say("the bare loops")
        file = self.folder / "upload"
        file.write_bytes(self.uploads[0].data)
        figures = bare_loop(self.bundle, file, self.seconds)
        for reader in OTHER_READERS:
            found = bare_loop(self.bundle, file, self.seconds, reader)
            figures |= {f"{reader}_{name}": value for name, value in found.items()}
        return figures


def prepare(arguments: argparse.Namespace, folder: Path) -> Bench:
    """Plan a run."""
    rounds, minutes = (1, 5.0) if arguments.quick else (3, arguments.minutes)
    bundle = current_bundle(arguments.store, arguments.model)
    servers = all_servers(bundle, arguments.store, folder / "cache", arguments.peers)
    servers = [server for server in servers if not arguments.only or server.name in arguments.only]
    seconds = arguments.seconds or phase_seconds(minutes, rounds=rounds, servers=len(servers))
    uploads = make_uploads(arguments.data)
    results = Results(
        machine=describe_machine(arguments.peers),
        failures={} if bundle.manifest.fast else {FAST: "the bundle allows no precision fast"},
        plan=f"{len(servers)} servers in turn, {rounds} rounds, {seconds:g} s a phase, medians; "
        f"{arguments.model} version "
        f"{bundle.manifest.version}, graph {bundle.sha256[:12]}",
        uploads=[upload.description for upload in uploads],
        titles={server.name: server.title for server in servers},
    )
    return Bench(
        bundle,
        arguments.store,
        uploads,
        servers,
        folder,
        rounds,
        seconds,
        minutes,
        arguments.quick,
        results,
    )


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round in about five minutes")
    parser.add_argument(
        "--minutes", type=float, default=44.0, help="how long the whole may take (44)"
    )
    parser.add_argument(
        "--seconds", type=float, help="length of a phase; else chosen from the minutes"
    )
    parser.add_argument("--data", type=Path, help="a real DICOM file in place of the drawn one")
    parser.add_argument("--store", type=Path, default=ROOT / "model_store")
    parser.add_argument(
        "--model", default="pneumothorax", help="whose graph all servers run (pneumothorax)"
    )
    parser.add_argument("--only", nargs="+", help="names of servers, as in ours litserve_onnx")
    parser.add_argument(
        "--out",
        type=Path,
        default=HERE / "RESULTS.md",
        help="the page, or its folder; results/ lies beside it",
    )
    peers = os.environ.get("BENCH_PEERS", str(ROOT / ".venv-bench"))
    parser.add_argument(
        "--peers", type=Path, default=Path(peers) / "bin/python", help="the peers' Python"
    )
    return parser.parse_args()


def main() -> None:
    """Run, and write RESULTS.md and what it is made of."""
    arguments = read_arguments()
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # so that servers are ended before we are
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        bench = prepare(arguments, Path(folder))
        uvloop.run(bench.run())
    page = arguments.out / "RESULTS.md" if arguments.out.is_dir() else arguments.out
    results = bench.results
    beside = page.parent / (
        "results" if page.name == "RESULTS.md" else f"results-{page.stem.lower()}"
    )
    plots = draw_plots(results.servers, results.titles, beside)
    (beside / "results.json").write_text(json.dumps(asdict(results), indent=1) + "\n")
    page.write_text(write_report(results, [f"{beside.name}/{plot}" for plot in plots]))
    bench.say(f"written: {page}")


if __name__ == "__main__":
    main()
