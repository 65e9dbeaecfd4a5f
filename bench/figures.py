"""The arithmetic of the measurements: small, pure, and tested."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

Figures = dict[str, float]
"""Measured values by name; the name ends in the unit."""

ROUND_OVERHEAD_S = 11.0
"""What a server costs in each round besides its phases: start, warming up, storm, probe, end."""

PHASES = 11.5
"""Phases of equal length for a server in a round; two and a half of them are backlogs that run
off."""

EXTRAS_S = 150.0
"""The measurements that only we go through."""


def percentile(values: Sequence[float], share: float) -> float:
    """Give the smallest value that at least this share of all does not exceed (nearest rank); NaN
    of none."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def goodput(seconds: Sequence[float], *, deadline_s: float, duration_s: float) -> float:
    """Give the answers a second that were there by their deadline."""
    return sum(second <= deadline_s for second in seconds) / duration_s


def medians(rounds: Sequence[Mapping[str, float]]) -> Figures:
    """Give each figure's median over the rounds that have it."""
    names = dict.fromkeys(name for figures in rounds for name in figures)
    found = {
        name: [figures[name] for figures in rounds if math.isfinite(figures.get(name, math.nan))]
        for name in names
    }
    return {name: median(values) for name, values in found.items() if values}


def poisson_times(rate: float, duration_s: float, seed: int) -> Iterator[float]:
    """Give the arrival times, in seconds from the start, of a Poisson process; the same ones for
    the same seed."""
    draw = random.Random(seed)
    due_s = draw.expovariate(rate)
    while due_s < duration_s:
        yield due_s
        due_s += draw.expovariate(rate)


def phase_seconds(minutes: float, *, rounds: int, servers: int) -> float:
    """Choose how long each phase lasts so that the whole fits; at least a second, at most six."""
    share_s = (60 * minutes - EXTRAS_S) / (rounds * servers)
    return round(min(6.0, max(1.0, (share_s - ROUND_OVERHEAD_S) / PHASES)), 2)
