"""Texts of figures: the value with its interval, or that it is not measurable."""

from collections.abc import Sequence

NOT_MEASURABLE = "not measurable"


def figure_text(
    value: float | None, interval: Sequence[float] | None = None, *, places: int = 4
) -> str:
    """Return a figure to four places, with its 95 % interval to three if it has one."""
    if value is None:
        return NOT_MEASURABLE
    return f"{value:.{places}f}" + (f" ({interval_text(interval)})" if interval else "")


def interval_text(interval: Sequence[float] | None) -> str:
    """Return a 95 % interval to three places; empty if there is none."""
    return f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
