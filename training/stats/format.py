"""Figures of metrics.json as people read them: a value, its interval, or that there is none."""

from collections.abc import Mapping
from typing import Any


def figure_text(figures: Mapping[str, Any], key: str, *, interval: bool = True) -> str:
    """Return a figure to four places, with its 95 % interval if it has one."""
    value = figures[key]
    if value is None:
        return "not measurable"
    bounds = interval_text(figures, key) if interval else ""
    return f"{value:.4f}" + (f" ({bounds})" if bounds else "")


def interval_text(figures: Mapping[str, Any], key: str) -> str:
    """Return a figure's 95 % interval to three places; empty if it has none."""
    bounds = figures.get(f"{key}_ci95")
    return f"{bounds[0]:.3f} to {bounds[1]:.3f}" if bounds else ""
