"""What the service is to reach, and whether it did: ratios within one run, so that another machine
can repeat them."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bench.figures import Figures

OURS = "ours"
FAST = "ours-openvino-fast"
TORCH = "fastapi_torch"
CAREFUL = "fastapi_careful"
PLAIN = "fastapi_plain"
OTHER_READING = (CAREFUL, PLAIN)
"""Peers that read an upload by themselves; all others read it as the service does."""


@dataclass(frozen=True)
class Goal:
    """One figure, and the most or the least that it may be."""

    title: str
    value: float
    limit: float
    unit: str = ""
    is_least: bool = False
    """Whether the limit is the least, not the most."""

    @property
    def verdict(self) -> str:
        if not math.isfinite(self.value):
            return "unmeasured"
        return (
            "met"
            if (self.value >= self.limit if self.is_least else self.value <= self.limit)
            else "**not met**"
        )

    @property
    def row(self) -> tuple[str, str, str, str]:
        sign = ">=" if self.is_least else "<="
        value = f"{self.value:.3g}{self.unit}" if math.isfinite(self.value) else "-"
        return self.title, f"{sign} {self.limit:g}{self.unit}", value, self.verdict


def best_peer(servers: Mapping[str, Figures]) -> str | None:
    """Name the peer with our reading that answers most at sixteen connections."""
    peers = {
        name: figures["c16_per_s"]
        for name, figures in servers.items()
        if not name.startswith("ours") and name not in OTHER_READING
    }
    return max(peers, key=lambda name: peers[name]) if peers else None


def check_goals(servers: Mapping[str, Figures], bare: Figures, extras: Figures) -> list[Goal]:
    """Compare the medians of a run with every goal."""
    ours = servers.get(OURS, {})
    return [
        *_overload(ours),
        *_throughput(servers, bare),
        *_latency(ours, bare),
        Goal("server CPU per request / bare loop", _of(ours, "c16_cpu_ms", bare, "cpu_ms"), 1.05),
        Goal("resident memory after the load", _get(ours, "memory_mb"), 300, " MB"),
        *_lifetime(extras),
        Goal(
            "four views / one answer, one connection",
            _of(extras, "tta_c1_p50_ms", extras, "plain_c1_p50_ms"),
            3,
        ),
    ]


def _latency(ours: Figures, bare: Figures) -> list[Goal]:
    return [
        Goal(
            "read / lean read, JPEG baseline",
            _of(bare, "read_ms", bare, "read_leanly_read_ms"),
            1.15,
        ),
        Goal(
            "single answer / lean bare loop",
            _of(ours, "c1_p50_ms", bare, "read_leanly_single_ms"),
            1.10,
        ),
        Goal(
            "p99 at 0.8x capacity / single answer", _of(ours, "x0.8_p99_ms", ours, "c1_p50_ms"), 7
        ),
        Goal(
            "p99 at 0.6x capacity / single answer", _of(ours, "x0.6_p99_ms", ours, "c1_p50_ms"), 4
        ),
    ]


def _lifetime(extras: Figures) -> list[Goal]:
    """Goals of a service's start, its swaps and its end."""
    return [
        Goal("start to ready, two bundles, tuned before", _get(extras, "ready_tuned_s"), 2, " s"),
        Goal("start to ready, two bundles, first time", _get(extras, "ready_first_s"), 6, " s"),
        Goal(
            f"requests lost over {extras.get('swaps', 0):.0f} swaps under load",
            _get(extras, "swap_lost"),
            0,
        ),
        Goal(
            f"requests lost over {extras.get('drains', 0):.0f} SIGTERM drains under load",
            _get(extras, "drain_lost"),
            0,
        ),
    ]


def _overload(ours: Figures) -> Iterator[Goal]:
    yield Goal(
        "goodput within 500 ms at 1.5x / own capacity",
        _get(ours, "x1.5_good_share"),
        0.95,
        is_least=True,
    )
    yield Goal(
        "goodput within 500 ms at 3x / own capacity",
        _get(ours, "x3_good_share"),
        0.95,
        is_least=True,
    )
    yield Goal(
        "refusal at 3x, p99 in the server", _get(ours, "x3_refused_in_server_p99_ms"), 5, " ms"
    )
    yield Goal("refusal at 3x, p99 seen by the client", _get(ours, "x3_refused_p99_ms"), 10, " ms")
    yield Goal("probe after a storm of abandoned uploads", _get(ours, "storm_s"), 0.05, " s")
    yield Goal("back to idle after 3x stops", _get(ours, "x3_idle_s"), 0.3, " s")
    yield Goal("`/livez` at 3x, p99", _get(ours, "x3_health_p99_ms"), 20, " ms")


def _throughput(servers: Mapping[str, Figures], bare: Figures) -> Iterator[Goal]:
    name = "c16_per_s"
    ours = servers.get(OURS, {})
    best = servers.get(best_peer(servers) or "", {})

    def least(title: str, value: float, limit: float) -> Goal:
        return Goal(f"throughput {title}", value, limit, is_least=True)

    yield least("/ bare loop with our reading", _of(ours, name, bare, "per_s"), 0.95)
    yield least(
        "/ bare loop with a careful user's reading",
        _of(ours, name, bare, "read_carefully_per_s"),
        0.95,
    )
    yield least("/ best peer with our reading", _of(ours, name, best, name), 1.0)
    yield least("/ careful FastAPI", _of(ours, name, servers.get(CAREFUL, {}), name), 1.1)
    yield least(
        "/ FastAPI as most people write it", _of(ours, name, servers.get(PLAIN, {}), name), 1.5
    )
    yield least("/ FastAPI + torch eager", _of(ours, name, servers.get(TORCH, {}), name), 4)
    yield least("`fast` / best peer", _of(servers.get(FAST, {}), name, best, name), 1.5)
    for upload, title in (("deep", "12-bit DICOM"), ("png", "PNG")):
        figure = f"{upload}_{name}"
        yield least(f"of {title} / best peer", _of(ours, figure, best, figure), 1.0)


def _get(figures: Figures, name: str) -> float:
    return figures.get(name, math.nan)


def _of(figures: Figures, name: str, base: Figures, base_name: str) -> float:
    value, by = _get(figures, name), _get(base, base_name)
    return value / by if by else math.nan
