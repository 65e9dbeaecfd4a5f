"""How late answers come against what admission predicted: learned from the latest, then forgotten.

    expected = pace * work + margin

The pace is the seconds of waiting for a second of work, over the latest answers. The margin covers
nine of ten of them. Both are forgotten as fast as new answers contradict them: an answer counts for
a second at most, and 32 answers count at most. This is how TCP sets its retransmission timeout
(RFC 6298), over a window instead of a running mean.

All of it belongs to one event loop, and nothing here reads a clock.
"""

from collections import deque

_WINDOW = 32
"""Answers that count."""

_HORIZON_S = 1.0
"""Seconds for which an answer counts."""

_QUANTILE = 0.9
"""Share of the latest answers that came within their expectation."""

_MEMORY = 0.9
"""Share of the past in the long-term pace, a geometric mean. It serves while no answer is young
enough."""

_OUTLIER = 4.0
"""Times its expectation that one answer may count for: a single delay is no trend."""

_LEAST_S = 1e-6


class LatencyBias:
    """Seconds that a piece of work takes while the machine is as busy as now."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_WINDOW)
        self._works_s: deque[float] = deque(maxlen=_WINDOW)
        self._tooks_s: deque[float] = deque(maxlen=_WINDOW)
        self._long_term = 1.0
        self._slope = 1.0
        self._margin_s = 0.0

    def observe(self, now: float, work_s: float, took_s: float) -> None:
        """Learn from one answer.

        Args:
            now: when it was there.
            work_s: the work before it and its own, as it was estimated on admission.
            took_s: from admission to the answer.
        """
        work_s = max(work_s, _LEAST_S)
        took_s = min(max(took_s, _LEAST_S), _OUTLIER * self.seconds(now, work_s))
        self._long_term *= (took_s / work_s / self._long_term) ** (1 - _MEMORY)
        self._times.append(now)
        self._works_s.append(work_s)
        self._tooks_s.append(took_s)
        self._forget(now)
        self._fit()

    def seconds(self, now: float, work_s: float) -> float:
        """Return how long an answer takes that has so much work before it, its own included."""
        if self._forget(now):
            self._fit()
        return self._slope * work_s + self._margin_s

    def mean_seconds(self, now: float, work_s: float) -> float:
        """Return the same without the margin: half of the answers come sooner."""
        return self.seconds(now, work_s) - self._margin_s

    def _forget(self, now: float) -> bool:
        """Drop answers that are too old, and tell whether there were any."""
        num_before = len(self._times)
        while self._times and self._times[0] < now - _HORIZON_S:
            self._times.popleft()
            self._works_s.popleft()
            self._tooks_s.popleft()
        return len(self._times) < num_before

    def _fit(self) -> None:
        if not self._times:
            self._slope = self._long_term
            self._margin_s = 0.0
            return
        slope = sum(self._tooks_s) / sum(self._works_s)
        late_s = sorted(
            [
                took_s - slope * work_s
                for took_s, work_s in zip(self._tooks_s, self._works_s, strict=True)
            ]
        )
        self._slope = slope
        self._margin_s = max(0.0, late_s[min(len(late_s) - 1, int(_QUANTILE * len(late_s)))])
