"""How many requests a second may be answered: the generic cell rate algorithm (ITU-T I.371)."""


class CellRate:
    """When each request of many may be answered, after a burst that may come at once."""

    def __init__(self, per_second: float, burst: int) -> None:
        """Take the rate, and how many requests may come at once."""
        self._spacing_s = 1 / per_second
        self._burst_s = burst / per_second
        self._next = float("-inf")

    def wait_s(self, now: float) -> float:
        """Return how long the next request has to wait, on any clock in seconds."""
        return max(0.0, self._after(now) - now)

    def take(self, now: float) -> None:
        """Count one request that is answered now."""
        self._next = self._after(now)

    def _after(self, now: float) -> float:
        return max(self._next, now - self._burst_s) + self._spacing_s
