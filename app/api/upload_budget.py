"""Limit the bytes of uploads that are held in memory at once.

A body with an announced length is refused before it is read if it would not fit. Later only bytes
that have arrived are counted, so no client blocks others by announcing much and sending little.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import Overloaded


class UploadBudget:
    """The budget of one service process; belongs to one event loop."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Bytes that are reserved now."""
        return self._held_bytes

    @contextmanager
    def reserve(self) -> Iterator["Reservation"]:
        """Yield one request's reservation, and free its bytes when the block ends."""
        reservation = Reservation(self)
        try:
            yield reservation
        finally:
            self._held_bytes -= reservation.held_bytes

    def check(self, further_bytes: int) -> None:
        """Raise `Overloaded` if so many further bytes would not fit."""
        if self._held_bytes + further_bytes > self._max_bytes:
            raise Overloaded("The uploads in work take all the memory that they may.")

    def take(self, num_bytes: int) -> None:
        """Reserve bytes; raise `Overloaded` if they do not fit."""
        self.check(num_bytes)
        self._held_bytes += num_bytes


class Reservation:
    """The bytes of one request."""

    def __init__(self, budget: UploadBudget) -> None:
        self._budget = budget
        self.held_bytes = 0

    def check(self, further_bytes: int) -> None:
        """Raise `Overloaded` if an announced body would not fit."""
        self._budget.check(further_bytes)

    def take(self, num_bytes: int) -> None:
        """Reserve bytes that have arrived; raise `Overloaded` if they do not fit."""
        self._budget.take(num_bytes)
        self.held_bytes += num_bytes
