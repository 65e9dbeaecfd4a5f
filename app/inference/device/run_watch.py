"""Whether a run of a graph has gone on for so long that its engine must be stuck.

A clock of ticks, which the event loop counts, takes no part in a stop of the whole process.

Shape suffixes: N images of a batch, H and W input rows and columns, M columns of metadata.
"""

from itertools import count

import numpy as np
from numpy.typing import NDArray

from cxr.graph import Graph
from cxr.interpret import Outputs

TICK_S = 0.5
_MAX_TICKS = 20
"""Ten seconds; a run takes milliseconds on a GPU, and less than a second on a CPU."""


class RunWatch:
    """The runs that go on now, of all graphs of one process."""

    def __init__(self, max_ticks: int = _MAX_TICKS) -> None:
        self._max_ticks = max_ticks
        self._now = 0
        self._began: dict[int, int] = {}
        self._numbers = count()

    def tick(self) -> None:
        """Count one more tick."""
        self._now += 1

    @property
    def is_stuck(self) -> bool:
        """Tell whether a run has gone on for too long."""
        began = min(list(self._began.values()), default=self._now)
        return self._now - began > self._max_ticks

    def begin(self) -> int:
        """Note that a run begins, in any thread. Return its number, for `end`."""
        number = next(self._numbers)
        self._began[number] = self._now
        return number

    def end(self, number: int) -> None:
        """Note that a run has ended, in any thread."""
        del self._began[number]


class WatchedGraph:
    """A graph whose runs are watched."""

    def __init__(self, graph: Graph, watch: RunWatch) -> None:
        self.engine = graph.engine
        self.precision = graph.precision
        self.num_facts = graph.num_facts
        self._graph = graph
        self._watch = watch

    def run(
        self,
        batch_NHW: NDArray[np.uint8],
        metadata_NM: NDArray[np.float32] | None = None,
        *,
        with_map: bool = True,
    ) -> Outputs:
        """Answer a batch as the graph does."""
        number = self._watch.begin()
        try:
            return self._graph.run(batch_NHW, metadata_NM, with_map=with_map)
        finally:
            self._watch.end(number)
