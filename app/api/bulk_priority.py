"""Requests with `x-priority: bulk`: they wait until the service has a core to spare.

They wait before they are admitted and before their bodies are read, so they hold no place and
delay nobody. One begins only if fewer uploads are in flight than there are cores, less one; on one
core only if nothing is in flight. So a request of the usual priority waits for at most one run.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from app.errors import Overloaded

_LOOK_S = 0.1
"""Longest pause between two looks: a slow body stops being in flight without any request's end."""

_RETRY_AFTER_S = 5


class Slack:
    """The bulk requests that wait. Belongs to one event loop."""

    def __init__(self, num_in_flight: Callable[[], int], *, cores: int, max_waiting: int) -> None:
        """Watch the number of uploads in flight in a process that may use so many cores."""
        self._num_in_flight = num_in_flight
        self._max_in_flight = max(1, cores - 1)
        self._max_waiting = max_waiting
        self._waiting: deque[asyncio.Event] = deque()

    async def wait(self, deadline: float) -> None:
        """Wait, first come first served, until there is slack.

        Args:
            deadline: on `time.monotonic`'s clock.

        Raises:
            Overloaded: there was none by the deadline, or too many wait.
        """
        if not self._waiting and self._is_there():
            return
        if len(self._waiting) >= self._max_waiting:
            raise Overloaded("Too many bulk requests wait.", retry_after_s=_RETRY_AFTER_S)
        mine = asyncio.Event()
        self._waiting.append(mine)
        try:
            while not (self._waiting[0] is mine and self._is_there()):
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise Overloaded(
                        "The service had no time for bulk requests.", retry_after_s=_RETRY_AFTER_S
                    )
                with suppress(TimeoutError):
                    await asyncio.wait_for(mine.wait(), min(left_s, _LOOK_S))
                mine.clear()
        finally:
            self._waiting.remove(mine)

    def look(self) -> None:
        """Let the bulk request that waits longest look again; called at the end of each request."""
        if self._waiting:
            self._waiting[0].set()

    def _is_there(self) -> bool:
        return self._num_in_flight() < self._max_in_flight
