"""The text of `/metrics`, rendered beside the event loop and only so often.

Rendering takes some ten milliseconds, and everybody may ask for it. A few renderings a second are
enough for scrapers; further requests get the last text.
"""

import asyncio
import re
import time
from collections.abc import Callable

from app.telemetry import Metrics

_OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
_PLAIN_TEXT = "text/plain"
"""The two formats, as a scraper asks for them. A scraper's own words would make a text each."""

_ASKS_FOR_OPEN_METRICS = re.compile(
    r"(?:^|,)\s*application/openmetrics-text\s*(?:;\s*version=1\.0\.0\s*)?(?=;|,|$)"
    r"(?!;\s*version=)"
)

_PER_SECOND = 2.0
_BURST = 5.0
"""Renderings that are allowed: on average, and at once."""


class CachedMetrics:
    """Renders the metrics of one process; belongs to one event loop."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._texts: dict[str, tuple[bytes, str]] = {}
        self._rendering: dict[str, asyncio.Task[tuple[bytes, str]]] = {}
        self._allowance = _BURST
        self._seen = clock()

    async def text(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics in the format that a scraper accepts, and the media type."""
        wanted = _OPEN_METRICS if _ASKS_FOR_OPEN_METRICS.search(accept) else _PLAIN_TEXT
        task = self._rendering.get(wanted)
        if task is None:
            if wanted in self._texts and not self._spend():
                return self._texts[wanted]
            task = asyncio.create_task(asyncio.to_thread(self._metrics.render, wanted))
            self._rendering[wanted] = task
            task.add_done_callback(lambda _: self._rendering.pop(wanted, None))
        # A client that leaves must not stop the rendering for others.
        self._texts[wanted] = await asyncio.shield(task)
        return self._texts[wanted]

    def _spend(self) -> bool:
        """Take one rendering from the allowance; return whether there was one."""
        now = self._clock()
        self._allowance = min(_BURST, self._allowance + (now - self._seen) * _PER_SECOND)
        self._seen = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True
