"""The text of `/metrics`, rendered beside the event loop and only so often.

Rendering takes some ten milliseconds, and everybody may ask for it. A few renderings a second are
enough for scrapers; further requests get the last text.
"""

import asyncio
import time
from collections.abc import Callable

from prometheus_client.exposition import choose_encoder

from app.telemetry import Metrics

_PER_SECOND = 2.0
_BURST = 5.0
"""Renderings that are allowed: on average, and at once."""


class CachedMetrics:
    """Renders the metrics of one process; belongs to one event loop."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._texts: dict[str, bytes] = {}
        self._rendering: dict[str, asyncio.Task[tuple[bytes, str]]] = {}
        self._allowance = _BURST
        self._seen = clock()

    async def text(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics in the format that a scraper accepts, and the media type."""
        _, media_type = choose_encoder(accept)
        task = self._rendering.get(media_type)
        if task is None:
            if media_type in self._texts and not self._spend():
                return self._texts[media_type], media_type
            task = asyncio.create_task(asyncio.to_thread(self._metrics.render, accept))
            self._rendering[media_type] = task
            task.add_done_callback(lambda _: self._rendering.pop(media_type, None))
        # A client that leaves must not stop the rendering for others.
        self._texts[media_type], _ = await asyncio.shield(task)
        return self._texts[media_type], media_type

    def _spend(self) -> bool:
        """Take one rendering from the allowance; return whether there was one."""
        now = self._clock()
        self._allowance = min(_BURST, self._allowance + (now - self._seen) * _PER_SECOND)
        self._seen = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True
