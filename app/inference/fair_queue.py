"""A queue whose senders share what serves it: who will have been served least is next.

Fair queueing (Demers, Keshav and Shenker, 1989) with equal weights. Each sender has an account of
the service that it got. The next item is the one after which its sender's account is lowest. A new
sender starts beside those that are served now, so idle time saves nothing up. Every fourth turn
belongs to the item that waits longest, so that no stream of others keeps it waiting for ever.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar

_TURNS_BY_AGE = 4
"""Every so many turns the item that waits longest is next."""

_MAX_ACCOUNTS = 1000
"""Accounts that are kept of senders that wait for nothing."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    """An item that waits: the number of its arrival, and what it may cost."""

    number: int
    cost: float
    item: T


class FairQueue(Generic[T]):
    """Items that wait, by sender; belongs to one event loop."""

    def __init__(self, max_waiting: int) -> None:
        """Take how many items of all senders may wait."""
        self._max_waiting = max_waiting
        self._waiting: dict[str, deque[_Entry[T]]] = {}
        self._served: dict[str, float] = {}
        self._start = 0.0
        """The account with which a new sender starts."""
        self._arrivals = count()
        self._turns = count(1)

    def __len__(self) -> int:
        """Return how many items wait."""
        return sum(map(len, self._waiting.values()))

    @property
    def is_full(self) -> bool:
        """Whether one more item would make another give way."""
        return len(self) >= self._max_waiting

    def put(self, sender: str, item: T, cost: float = 1.0) -> T | None:
        """Add an item behind the sender's others.

        Args:
            sender: whose account pays.
            item: what waits.
            cost: an estimate, in the unit of `charge`.

        Returns:
            The item that has to give way if too many wait, and is no longer in the queue: the
            newest one of the sender with most of them, which may be this item. Else None.
        """
        was_full = self.is_full
        self._served.setdefault(sender, self._start)
        self._waiting.setdefault(sender, deque()).append(_Entry(next(self._arrivals), cost, item))
        if not was_full:
            return None
        crowd = max(self._waiting, key=lambda name: (len(self._waiting[name]), name == sender))
        newest = self._waiting[crowd].pop()
        if not self._waiting[crowd]:
            del self._waiting[crowd]
        return newest.item

    def pop(self) -> tuple[str, T]:
        """Take the oldest item of the sender whose turn it is."""
        if next(self._turns) % _TURNS_BY_AGE == 0:
            sender = min(self._waiting, key=self._first_arrival)
        else:
            sender = min(self._waiting, key=self._account_after)
            self._start = max(self._start, self._account(sender))
        queue = self._waiting[sender]
        entry = queue.popleft()
        if not queue:
            del self._waiting[sender]
        self._forget_idle()
        return sender, entry.item

    def charge(self, sender: str, cost: float) -> None:
        """Write a cost in any unit to a sender's account; a negative one corrects an estimate."""
        self._served[sender] = self._account(sender) + cost

    def cost_before(self, sender: str, cost: float) -> float:
        """Return what is served before an item of the sender that comes now, if all share alike."""
        costs = {name: sum(entry.cost for entry in queue) for name, queue in self._waiting.items()}
        own = costs.pop(sender, 0.0)
        return own + sum(min(other, own + cost) for other in costs.values())

    def take_out(self, is_unwanted: Callable[[T], bool]) -> list[T]:
        """Remove and return all items of this kind."""
        removed: list[T] = []
        for sender, queue in tuple(self._waiting.items()):
            removed += [entry.item for entry in queue if is_unwanted(entry.item)]
            wanted = deque(entry for entry in queue if not is_unwanted(entry.item))
            self._waiting[sender] = wanted
            if not wanted:
                del self._waiting[sender]
        return removed

    def _account(self, sender: str) -> float:
        return self._served.get(sender, self._start)

    def _account_after(self, sender: str) -> tuple[float, int]:
        """Return a sender's account after its next item; equals come as they arrived."""
        entry = self._waiting[sender][0]
        return self._account(sender) + entry.cost, entry.number

    def _first_arrival(self, sender: str) -> int:
        return self._waiting[sender][0].number

    def _forget_idle(self) -> None:
        """Drop the accounts of senders that wait for nothing and got no more than a new one."""
        if not self._waiting or len(self._served) - len(self._waiting) > _MAX_ACCOUNTS:
            self._start = max(self._served.values(), default=self._start)
        for sender in tuple(self._served):
            if sender not in self._waiting and self._served[sender] <= self._start:
                del self._served[sender]
