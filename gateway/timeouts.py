"""Tell an image on which the service stalls from a service that answers nobody.

A request without an answer says nothing by itself. If the service has answered about another
image since, the image is the cause.
"""

import threading
import time

MAX_TIMEOUTS = 6
"""Tries of an image about which the service gives no answer, while it answers others."""

FIRST_WAIT_S = 30.0
"""Such an image holds a thread for as long as a try lasts, so it is not tried often."""


class TimeoutWatch:
    """When the service answered last, and since when it is silent about single images."""

    def __init__(self) -> None:
        """Begin without any answer."""
        self._lock = threading.Lock()
        self._answered_at = float("-inf")
        self._silent_since: dict[int, float] = {}

    def note_answer(self, instance: int) -> None:
        """Note that the service has answered about an image."""
        with self._lock:
            self._answered_at = time.monotonic()
            self._silent_since.pop(instance, None)

    def forget(self, instance: int) -> None:
        """Watch an image no longer: it is not tried again."""
        with self._lock:
            self._silent_since.pop(instance, None)

    def is_fault_of(self, instance: int, started: float) -> bool:
        """Tell whether a try without an answer is the image's fault.

        Args:
            instance: the image.
            started: monotonic time in seconds at which the try began.

        Returns:
            Whether another image got an answer since the first try that proved nothing.
        """
        with self._lock:
            since = self._silent_since.setdefault(instance, started)
            if self._answered_at < since:
                return False
            self._silent_since[instance] = time.monotonic()
            return True
