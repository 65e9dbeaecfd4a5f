"""Observations of metrics that are made together, a little later.

An answer makes a dozen. Made one at a time between two runs of a graph, each takes several times as
long, for prometheus_client's code is then in no cache of the processor.
"""

from collections import deque
from collections.abc import Callable, Iterable

from prometheus_client import Metric
from prometheus_client.registry import Collector

MOST_WAITING = 64
"""Observations that are made at once at the latest: the event loop stands still meanwhile."""


class LateObservations(Collector):
    """What is to be observed, in any thread.

    Registered before all metrics, it makes what waits whenever they are collected.
    """

    def __init__(self, most_waiting: int) -> None:
        """Take how many may wait; with 1 none does."""
        self._most_waiting = most_waiting
        self._waiting = deque[tuple[Callable[[float], object], float]]()

    def add(self, observe: Callable[[float], object], value: float) -> None:
        """Call a metric's method with a value, soon."""
        self._waiting.append((observe, value))
        if len(self._waiting) >= self._most_waiting:
            self.make()

    def make(self) -> None:
        """Make all that wait."""
        for _ in range(len(self._waiting)):
            try:
                observe, value = self._waiting.popleft()
            except IndexError:  # another thread has made them
                return
            observe(value)

    def collect(self) -> Iterable[Metric]:
        """Make what waits, and return no metric of its own."""
        self.make()
        return ()
