"""Watch the opening of a bundle: report how long it takes, and stop one that never ends."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cxr.graph.runtime import Cancellation

logger = logging.getLogger("cxr.store")

_WARNING_S = 60.0
"""Seconds after which an opening is reported in the log."""

_NOTE_S = 5.0
"""Seconds after which it is reported by readiness."""

_TICK_S = 0.5


@dataclass(frozen=True, slots=True)
class _Opening:
    """A version that is being opened now."""

    model: str
    version: int
    started: float


class OpeningWatch:
    """Watches the openings of one process; one at a time."""

    def __init__(self, limit_s: float, report_s: Callable[[float], None]) -> None:
        """Take a time limit, and a function to which the seconds of an opening are reported."""
        self._limit_s = limit_s
        self._report_s = report_s
        self._opening: _Opening | None = None

    @property
    def notes(self) -> list[str]:
        """What readiness says of an opening that takes long."""
        opening = self._opening
        seconds = time.monotonic() - opening.started if opening else 0.0
        if opening is None or seconds < min(_NOTE_S, self._limit_s / 2):
            return []
        return [f"{opening.model} version {opening.version} has been opening for {seconds:.0f} s"]

    @contextmanager
    def watch(self, model: str, version: int) -> Iterator[Cancellation]:
        """Report while the block runs; its cancellation is used when the time limit is over."""
        opening = _Opening(model, version, time.monotonic())
        cancellation = Cancellation()
        has_ended = threading.Event()
        thread = threading.Thread(
            target=self._follow, args=(opening, cancellation, has_ended), daemon=True
        )
        self._opening = opening
        thread.start()
        try:
            yield cancellation
        finally:
            has_ended.set()
            self._opening = None
            thread.join()
            self._report_s(0.0)

    def _follow(
        self, opening: _Opening, cancellation: Cancellation, has_ended: threading.Event
    ) -> None:
        facts = {"model": opening.model, "version": opening.version}
        has_warned = False
        while not has_ended.wait(min(_TICK_S, self._limit_s / 2)):
            seconds = time.monotonic() - opening.started
            self._report_s(seconds)
            if seconds >= min(_WARNING_S, self._limit_s) and not has_warned:
                has_warned = True
                logger.warning("a bundle takes long to open", extra={**facts, "seconds": seconds})
            if seconds >= self._limit_s and not cancellation.is_cancelled:
                cancellation.cancel(f"it was not open after {self._limit_s:g} s")
