"""Whether an upload that comes now can be answered in time; the rest is refused before its body is
read.

    forecast = what is ahead (bodies on their way, decoding, queues, running batches)
             + the upload's own decoding and its own views

Every part is learned online, and the whole is corrected by how right it was before.
"""

import asyncio
import math
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from app.errors import DeadlineExceeded, Overloaded
from app.inference.batcher import Batcher
from app.inference.decoders import Decoders
from app.inference.latency import LatencyBias

_BRISK_S = 0.25
"""Seconds for which a body on its way counts as ahead of others: a slower one holds nobody up, and
can't be made to."""

_STALE_S = 1.0
"""Seconds after which what was learned is too old to turn away from an idle service: else it could
never learn again."""


class Arrival:
    """One body on its way, and the seconds of waiting that it will add for others."""

    def __init__(self, admission: "Admission", seconds: float) -> None:
        self._admission = admission
        self._seconds = seconds
        self._timer = asyncio.get_running_loop().call_later(_BRISK_S, self.end)
        admission.arriving_s += seconds

    def end(self) -> None:
        """Stop counting it: it is here, it is given up, or it is too slow to matter; may be called
        again.
        """
        self._timer.cancel()
        self._admission.arriving_s -= self._seconds
        self._seconds = 0.0


class Admission:
    """The forecasts of one service process; belongs to one event loop."""

    def __init__(self, decoders: Decoders, batchers: Collection[Batcher]) -> None:
        self._decoders = decoders
        self._batchers = batchers
        self._bias = LatencyBias()
        self._learned = -math.inf
        self.arriving_s = 0.0

    def estimate_s(self, batcher: Batcher, num_views: int, num_bytes: int) -> float:
        """Forecast the seconds until the answer to an upload that comes now; a length of 0 is
        unknown.
        """
        own_s = self._decoders.seconds(num_bytes) + batcher.seconds(num_views)
        return self._bias.factor * (self._ahead_s() + own_s)

    def check(self, batcher: Batcher, num_views: int, num_bytes: int, deadline: float) -> float:
        """Refuse an upload that could not be answered by its deadline; gives the forecast seconds.

        All views must fit: never are fewer answered than were asked for.

        Raises:
            Overloaded: it would be late, or too much is waiting.
            NotReady: the queue is closed.
        """
        batcher.check(num_views)
        estimate_s, now = self.estimate_s(batcher, num_views, num_bytes), time.monotonic()
        late_s = now + estimate_s - deadline
        is_worth_a_try = self._ahead_s() <= 0 and now - self._learned > _STALE_S
        if late_s > 0 and not is_worth_a_try:
            raise Overloaded(
                "The answer could not be there in time.", retry_after_s=max(1, math.ceil(late_s))
            )
        return estimate_s

    @contextmanager
    def expect(
        self, batcher: Batcher, num_views: int, num_bytes: int, deadline: float
    ) -> Iterator[Arrival]:
        """Count an upload as ahead of others while its body is on its way; refuses it first, as
        `check` does.
        """
        self.check(batcher, num_views, num_bytes, deadline)
        decode_s = self._decoders.seconds(num_bytes) / self._decoders.num_threads
        arrival = Arrival(self, decode_s + batcher.seconds(num_views) / batcher.num_run_slots)
        try:
            yield arrival
        finally:
            arrival.end()

    @contextmanager
    def admit(
        self, batcher: Batcher, num_views: int, num_bytes: int, deadline: float
    ) -> Iterator[None]:
        """Hold a place for an upload that is here, and learn how long its answer took; refuses it
        first, as `check` does.
        """
        estimate_s, started = self.check(batcher, num_views, num_bytes, deadline), time.monotonic()
        with batcher.admit(num_views):
            try:
                yield
            except DeadlineExceeded:
                self.learn(estimate_s, time.monotonic() - started)
                raise
            self.learn(estimate_s, time.monotonic() - started)

    def learn(self, estimate_s: float, actual_s: float) -> None:
        """Compare an answer, or one that came too late, with its forecast."""
        self._bias.observe(estimate_s / self._bias.factor, actual_s)
        self._learned = time.monotonic()

    def _ahead_s(self) -> float:
        return (
            self.arriving_s
            + self._decoders.wait_s
            + sum(batcher.wait_s for batcher in self._batchers)
        )
