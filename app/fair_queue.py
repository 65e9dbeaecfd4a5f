"""A queue whose senders share what serves it: who was served least is next.

Start-time fair queueing (Goyal, Vin and Cheng, 1996) with equal weights, and costs that are known
afterwards. Each sender has an account of the service that it got. A new sender comes first. Idle
time saves nothing up: an account that the others have caught up with is forgotten. Every fourth
turn belongs to the item that waits longest, so that a stream of new senders can't keep others
waiting for ever.
"""

from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Generic, TypeVar

_TURNS_BY_AGE = 4
"""Every so many turns the item that waits longest is next."""

_MAX_ACCOUNTS = 1000
"""Accounts that are kept of senders that wait for nothing."""

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items that wait, by sender; belongs to one event loop."""

    def __init__(self, max_waiting: int) -> None:
        """Take how many items of all senders may wait."""
        self._max_waiting = max_waiting
        self._waiting: dict[str, deque[tuple[int, T]]] = {}
        """The items of each sender, each with the number of its arrival."""
        self._served: dict[str, float] = {}
        self._caught_up = 0.0
        """The account of the sender that was served last; no sender that waits has less."""
        self._arrivals = count()
        self._turns = count(1)

    def __len__(self) -> int:
        """Return how many items wait."""
        return sum(map(len, self._waiting.values()))

    @property
    def is_full(self) -> bool:
        """Whether one more item would make another give way."""
        return len(self) >= self._max_waiting

    def put(self, sender: str, item: T) -> T | None:
        """Add an item behind the sender's others.

        Returns:
            The item that has to give way if too many wait, and is no longer in the queue: the
            newest one of the sender with most of them, which may be this item. Else None.
        """
        was_full = self.is_full
        self._waiting.setdefault(sender, deque()).append((next(self._arrivals), item))
        if not was_full:
            return None
        crowd = max(self._waiting, key=lambda name: (len(self._waiting[name]), name == sender))
        _, newest = self._waiting[crowd].pop()
        if not self._waiting[crowd]:
            del self._waiting[crowd]
        return newest

    def pop(self) -> tuple[str, T]:
        """Take the oldest item of the sender whose turn it is."""
        if next(self._turns) % _TURNS_BY_AGE == 0:
            sender = min(self._waiting, key=self._first_arrival)
        else:
            sender = min(
                self._waiting, key=lambda name: (self._account(name), self._first_arrival(name))
            )
            self._caught_up = max(self._caught_up, self._account(sender))
        queue = self._waiting[sender]
        _, item = queue.popleft()
        if not queue:
            del self._waiting[sender]
        self._forget_idle()
        return sender, item

    def charge(self, sender: str, cost: float) -> None:
        """Write a cost in any unit to a sender's account; a negative one corrects an estimate."""
        self._served[sender] = self._served.get(sender, self._caught_up) + cost

    def num_before(self, sender: str) -> int:
        """Return how many items come before the sender's next one, if all senders take turns."""
        own = len(self._waiting.get(sender, ()))
        return sum(
            own if other == sender else min(len(queue), own + 1)
            for other, queue in self._waiting.items()
        )

    def take_out(self, is_unwanted: Callable[[T], bool]) -> list[T]:
        """Remove and return all items of this kind."""
        removed: list[T] = []
        for sender, queue in tuple(self._waiting.items()):
            removed += [item for _, item in queue if is_unwanted(item)]
            wanted = deque(numbered for numbered in queue if not is_unwanted(numbered[1]))
            self._waiting[sender] = wanted
            if not wanted:
                del self._waiting[sender]
        return removed

    def _account(self, sender: str) -> float:
        """Return what a sender was served; a new one comes before all others."""
        return self._served.get(sender, float("-inf"))

    def _first_arrival(self, sender: str) -> int:
        return self._waiting[sender][0][0]

    def _forget_idle(self) -> None:
        """Drop the accounts of senders that wait for nothing and got no more than the others."""
        if not self._waiting or len(self._served) - len(self._waiting) > _MAX_ACCOUNTS:
            self._caught_up = max(self._served.values(), default=self._caught_up)
        for sender in tuple(self._served):
            if sender not in self._waiting and self._served[sender] <= self._caught_up:
                del self._served[sender]
