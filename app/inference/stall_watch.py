"""How long the whole process stood still: stopped by a signal, frozen with its container, swapped.

Such a time says nothing of how long answers take, so estimates leave it out.
"""

_SHORTEST_S = 0.25
"""A gap between two beats that is shorter is the machine's ordinary unrest."""

_LARGEST_SHARE = 0.25
"""Share of one core that a process may have used in a gap and still count as stopped. A process
that only waits for cores that others hold uses more over its threads."""

BEAT_S = 0.05
"""Seconds between two beats."""


class StallWatch:
    """Adds up gaps in the beats of the event loop. Belongs to that loop, and reads no clock."""

    def __init__(self) -> None:
        self.total_s = 0.0
        self._time: float | None = None
        self._processor_s = 0.0

    def rest(self) -> None:
        """Expect no further beat: the next one begins anew."""
        self._time = None

    def beat(self, now: float, processor_s: float) -> None:
        """Note that the event loop is alive.

        Args:
            now: in seconds.
            processor_s: processor time of all threads of the process so far.
        """
        if self._time is not None:
            gap_s = now - self._time - BEAT_S
            used_s = processor_s - self._processor_s
            if gap_s >= _SHORTEST_S and used_s <= _LARGEST_SHARE * gap_s:
                self.total_s += gap_s
        self._time = now
        self._processor_s = processor_s
