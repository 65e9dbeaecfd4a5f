"""How many bytes of uploads are held in memory at once, and no more.

Every request has a share of one account.  A body whose length is announced is refused before
it is read where it would not fit; then, as for one of unknown length, what has really
arrived is counted, so that nobody blocks others by announcing much and sending little.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import Overloaded


class UploadBudget:
    """The account of one service process; belongs to one event loop."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """What all shares hold now."""
        return self._held_bytes

    @contextmanager
    def reserve(self) -> Iterator["Reservation"]:
        """Return one request's share; what it holds is let go when the block ends."""
        reservation = Reservation(self)
        try:
            yield reservation
        finally:
            self._held_bytes -= reservation.held_bytes

    def check(self, further_bytes: int) -> None:
        """Raise `Overloaded` where so many bytes more would not fit."""
        if self._held_bytes + further_bytes > self._max_bytes:
            raise Overloaded("The uploads in work take all the memory that they may.")

    def take(self, num_bytes: int) -> None:
        """Count bytes as held; raises `Overloaded`."""
        self.check(num_bytes)
        self._held_bytes += num_bytes


class Reservation:
    """What one request holds."""

    def __init__(self, budget: UploadBudget) -> None:
        self._budget = budget
        self.held_bytes = 0

    def check(self, further_bytes: int) -> None:
        """Raise `Overloaded` where an announced body would not fit."""
        self._budget.check(further_bytes)

    def take(self, num_bytes: int) -> None:
        """Hold bytes that have arrived; raises `Overloaded`."""
        self._budget.take(num_bytes)
        self.held_bytes += num_bytes
