"""How long to wait before the service or an archive is tried again: doubling, with jitter."""

import random
import threading
import time

_JITTER = 0.25
LONGEST_WAIT_S = 900.0
"""The longest wait without jitter, for all who name no shorter one."""

FURTHEST_S = LONGEST_WAIT_S * (1 + _JITTER)
"""No next try lies further ahead; one that does was noted before the clock was set back."""


def wait_s(tries: int, *, first_s: float = 1.0, longest_s: float = LONGEST_WAIT_S) -> float:
    """Return seconds to wait after so many tries (from 1), a quarter more or less by chance."""
    plain_s = min(longest_s, first_s * 2.0 ** min(tries - 1, 30))
    return plain_s * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret


class Pause:
    """A pause of everything that needs one target, while the target can't be reached.

    The first try after the pause is a probe: if it succeeds, everything goes on at once.
    """

    def __init__(self, longest_s: float) -> None:
        """Pause for a second at first, and for no longer than `longest_s`."""
        self._longest_s = longest_s
        self._lock = threading.Lock()
        self._failures = 0
        self._until = 0.0

    @property
    def left_s(self) -> float:
        """Seconds that the pause still lasts, 0 if there is none."""
        with self._lock:
            return max(0.0, self._until - time.monotonic())

    def failed(self, asked_s: float | None = None) -> None:
        """Begin or lengthen the pause.

        Args:
            asked_s: how long the target asked to be left alone, if it said so.
        """
        with self._lock:
            now = time.monotonic()
            if asked_s is not None:
                self._until = max(self._until, now + asked_s)
            elif now >= self._until:  # several tries that began together count as one
                self._failures += 1
                self._until = now + wait_s(self._failures, longest_s=self._longest_s)

    def succeeded(self) -> None:
        """End the pause."""
        with self._lock:
            self._failures = 0
            self._until = 0.0
