"""RESULTS.md: everything that one run measured, with where and how."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bench.figures import Figures
from bench.goals import OURS, best_peer, check_goals
from bench.phases import (
    CONNECTIONS,
    HASTY_PATIENCE_S,
    LOADS,
    STAGES,
    STORM_PATIENCE_S,
    STORM_S,
    STORM_SIZE,
)


@dataclass
class Results:
    """What a run found: medians by server, the bare loop's, and ours alone."""

    machine: dict[str, str] = field(default_factory=dict)
    plan: str = ""
    uploads: list[str] = field(default_factory=list)
    titles: dict[str, str] = field(default_factory=dict)
    servers: dict[str, Figures] = field(default_factory=dict)
    rounds: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    bare: Figures = field(default_factory=dict)
    extras: Figures = field(default_factory=dict)
    minutes: float = 0.0


def write_report(results: Results, plots: Sequence[str]) -> str:
    """Write the page."""
    return (
        "\n".join(
            [
                *_head(results),
                *_goals(results),
                *_tables(results),
                *_profile(results),
                *_foot(results, plots),
            ]
        )
        + "\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Write a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)] + [""]


def _head(results: Results) -> Iterator[str]:
    yield "# Results\n"
    yield (
        "Written by `make bench`. Load generator and server share the machine, so only ratios "
        "within one run count.\n"
    )
    yield from table(
        ("", ""),
        [
            *results.machine.items(),
            ("plan", results.plan),
            ("took", f"{results.minutes:.0f} minutes"),
        ],
    )
    yield "Uploads: " + "; ".join(results.uploads) + ". Every server is measured on the first.\n"
    if float(results.machine.get("busy before", "0").split()[0]) > _QUIET_PERCENT:
        yield (
            "**The machine was busy with other work before this began: no figure of this run "
            "counts.**\n"
        )
    for name, reason in results.failures.items():
        yield f"- {results.titles.get(name, name)} has gaps: {reason}"
    yield ""


_QUIET_PERCENT = 10.0
"""Share of its cores' time that a machine without other work stays under."""


def _goals(results: Results) -> Iterator[str]:
    goals = check_goals(results.servers, results.bare, results.extras)
    met = sum(goal.verdict == "met" for goal in goals)
    yield f"## Goals: {met} of {len(goals)} met\n"
    yield from table(("figure", "goal", "measured", ""), [goal.row for goal in goals])
    best = best_peer(results.servers)
    if best:
        yield f"The best peer by throughput at 16 connections was {results.titles[best]}.\n"
    yield "A GPU is measured by itself: [GPU.md](GPU.md).\n"
    yield "What bounds the figures that are not met: [LIMITS.md](LIMITS.md).\n"


def _tables(results: Results) -> Iterator[str]:
    yield from _closed_loop(results)
    yield from _open_loop(results)
    yield from _overload(results)
    yield from _costs(results)
    yield from _others(results)


def _rows(results: Results, *columns: Callable[[Figures], str]) -> list[list[str]]:
    return [
        [results.titles[name], *(column(figures) for column in columns)]
        for name, figures in results.servers.items()
    ]


def _closed_loop(results: Results) -> Iterator[str]:
    yield "## Closed loop\n"
    yield (
        "Each connection asks again as soon as it was answered. Answers a second, and p50 / "
        "p99 in ms.\n"
    )
    yield from table(
        ["", *(f"c = {count}" for count in CONNECTIONS)], _rows(results, *map(_closed, CONNECTIONS))
    )
    bare = results.bare
    if bare:
        yield (
            f"The bare loop in one process: {bare['per_s']:.0f}/s on two threads; one image "
            f"{bare['single_ms']:.1f} ms "
            f"(read {bare['read_ms']:.1f}, run {bare['run_ms']:.1f}), {bare['cpu_ms']:.1f} ms of "
            f"processor.\n"
        )


def _open_loop(results: Results) -> Iterator[str]:
    yield "## Open loop\n"
    yield (
        "Poisson arrivals at a multiple of each server's own capacity (its c = 16). Goodput, "
        "answers within 500 ms as a share "
        "of that capacity; then the p99 of all answers in ms.\n"
    )
    yield from table(["", *(f"{load:g}x" for load in LOADS)], _rows(results, *map(_open, LOADS)))


def _overload(results: Results) -> Iterator[str]:
    yield "## When it is too much\n"
    yield from table(
        [
            "", "refused at 3x", "refusal p99", "health p99 at 3x", "back to idle",
            "probe after the storm",
        ],
        _rows(
            results,
            _cell("x3_refused", "{:.0f}"), _cell("x3_refused_p99_ms", "{:.1f} ms"),
            _cell("x3_health_p99_ms", "{:.1f} ms"),
            _cell("x3_idle_s", "{:.2f} s"), _cell("storm_s", "{:.3f} s"),
        ),
    )  # fmt: skip
    hasty = _cell("hasty_storm_s", "{:.3f} s")(results.servers.get(OURS, {}))
    yield (
        f"The storm: for {STORM_S:g} s, {STORM_SIZE} uploads at a time are given up after "
        f"{STORM_PATIENCE_S:g} s; then one "
        f"is sent in earnest. Given up after {HASTY_PATIENCE_S:g} s, ours took {hasty}.\n"
    )


def _costs(results: Results) -> Iterator[str]:
    yield "## Costs\n"
    yield from table(
        ["", "CPU for a request", "of the bare loop", "resident memory", "start to first answer",
        "load generator, of a core"],
        _rows(
            results,
            _cell("c16_cpu_ms", "{:.1f} ms"),
            lambda figures: _ratio(figures, results.bare, "cpu_ms"),
            _cell("memory_mb", "{:.0f} MB"),
            _cell("ready_s", "{:.1f} s"), _cell("c16_generator_share", "{:.2f}"),
        ),
    )  # fmt: skip
    yield "Memory is the sum over a server's processes; what they share counts for each.\n"


def _others(results: Results) -> Iterator[str]:
    """Write what was measured on the other uploads."""
    names = [
        name
        for name in results.servers
        if any(figure.startswith(("png_", "deep_")) for figure in results.servers[name])
    ]
    if not names:
        return
    yield "## Other uploads, c = 16\n"
    head = ["", "PNG, answers a second", "p99", "12-bit DICOM, answers a second", "p99"]
    cells = [
        _cell(f"{kind}_c16_{figure}", form)
        for kind in ("png", "deep")
        for figure, form in _THROUGHPUT
    ]
    yield from table(
        head,
        [
            [results.titles[name], *(cell(results.servers[name]) for cell in cells)]
            for name in names
        ],
    )


_THROUGHPUT = (("per_s", "{:.0f}"), ("p99_ms", "{:.0f} ms"))


def _profile(results: Results) -> Iterator[str]:
    ours = results.servers.get(OURS, {})
    stages = (*STAGES, "respond")
    yield "## Where our time goes\n"
    yield (
        "Median of each stage in ms, from the service's own log. `respond` is what no other stage "
        "took: parsing, admission, "
        "waiting for the event loop, and writing the answer.\n"
    )
    rows = [
        [f"c = {count}", *(_cell(f"c{count}_{stage}_stage_ms", "{:.2f}")(ours) for stage in stages)]
        for count in CONNECTIONS
    ]
    yield from table(["", *stages], rows)


def _foot(results: Results, plots: Sequence[str]) -> Iterator[str]:
    for plot in plots:
        yield f"![{plot.rpartition('/')[2].removesuffix('.svg')}]({plot})\n"
    extras = results.extras
    if "swap_requests" in extras:
        yield (
            f"Swaps and drains: {extras['swap_requests']:.0f} requests over {extras['swaps']:.0f} "
            f"swaps, "
            f"{extras.get('drain_requests', math.nan):.0f} over "
            f"{extras.get('drains', math.nan):.0f} drains."
        )


def _cell(name: str, form: str) -> Callable[[Figures], str]:
    return lambda figures: form.format(figures[name]) if name in figures else "-"


def _closed(connections: int) -> Callable[[Figures], str]:
    def write(figures: Figures) -> str:
        values = [
            _cell(f"c{connections}_{name}", "{:.0f}")(figures)
            for name in ("per_s", "p50_ms", "p99_ms")
        ]
        return "{}/s, {} / {}".format(*values)

    return write


def _open(load: float) -> Callable[[Figures], str]:
    share, p99 = _cell(f"x{load:g}_good_share", "{:.2f}"), _cell(f"x{load:g}_p99_ms", "{:.0f}")
    return lambda figures: f"{share(figures)}, {p99(figures)}"


def _ratio(figures: Figures, bare: Mapping[str, float], name: str) -> str:
    return (
        f"{figures[f'c16_{name}'] / bare[name]:.2f}"
        if f"c16_{name}" in figures and bare.get(name)
        else "-"
    )
