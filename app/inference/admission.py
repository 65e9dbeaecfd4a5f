"""Whether an upload that comes now can be answered in time. One that can't is refused before its
body is read.

    expected = pace * (work of all uploads in flight + its own work) + margin

Work is estimated from the file's length and the number of views; `LatencyBias` learns how
long it takes while the machine is as busy as now. If nothing is in flight, an upload is admitted,
whatever was learned before. What is in flight is counted in whole numbers, so that the count ends
at exactly 0.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from app.errors import DeadlineExceeded, Overloaded
from app.inference.latency_bias import LatencyBias
from app.inference.queue_capacity import QueueCapacity
from app.inference.stall_watch import BEAT_S, StallWatch

_BRISK_S = 0.25
"""Seconds for which a body on its way counts as in flight. A slower sender must not make the
service refuse others."""

_CALM_S = 1.0
"""Seconds after a refusal for which the service counts as crowded."""

_MICROSECONDS = 1_000_000

_MEMORY = 0.9
"""Share of the past in the mean work of an upload."""

Clock = Callable[[], float]
"""Seconds from some moment on."""


class Timer(Protocol):
    """Calls a function once, so many seconds from now, as `loop.call_later` does."""

    def __call__(self, delay_s: float, function: Callable[[], None], /) -> object:
        """Return anything."""
        ...


@dataclass(frozen=True, slots=True)
class Work:
    """What one upload takes, in seconds."""

    own_s: float
    """From the start of its decoding to its answer."""
    shared_s: float
    """What it adds to the wait of uploads that come after it."""


@dataclass(eq=False, slots=True)
class InFlight:
    """One upload that was admitted, from its headers to its answer."""

    queue: QueueCapacity
    num_views: int
    deadline: float
    work: Work
    since: float = 0.0
    ahead_s: float = 0.0
    """Work of the uploads that were in flight when its body was there."""
    stalled_s: float = 0.0
    shared_us: int = 0
    is_counted: bool = False
    is_typical: bool = True
    """Whether others can learn from its time: not if it is decoded beside the other uploads."""
    is_begun: bool = False

    def start_by(self, seconds: float) -> float:
        """Return the latest time at which a step that takes so long may begin.

        An estimate may be wrong. So a step may always begin in the first half of the time, and at
        any time before the deadline if the upload waited for no other.
        """
        if not self.ahead_s:
            return self.deadline
        return self.deadline - min(seconds, (self.deadline - self.since) / 2)


@dataclass(eq=False)
class Admission:
    """The uploads in flight of one service process. Belongs to one event loop."""

    call_later: Timer
    clock: Clock = time.monotonic
    processor_clock: Clock = time.process_time
    pace: LatencyBias = field(default_factory=LatencyBias, init=False)
    num_in_flight: int = field(default=0, init=False)
    _backlog_us: int = field(default=0, init=False)
    _mean_shared_s: float = field(default=0.0, init=False)
    _arriving: deque[InFlight] = field(default_factory=deque, init=False)
    _stalls: StallWatch = field(default_factory=StallWatch, init=False)
    _is_beating: bool = field(default=False, init=False)
    _refused_at: float = field(default=-math.inf, init=False)

    @property
    def backlog_s(self) -> float:
        """Expected seconds until all that is in flight is answered."""
        return self.pace.mean_seconds(self.clock(), self._backlog_us / _MICROSECONDS)

    @property
    def capacity_per_second(self) -> float:
        """Uploads that can be answered in a second, as the latest ones were; 0 before the first."""
        seconds = self.pace.mean_seconds(self.clock(), self._mean_shared_s)
        return 1 / seconds if seconds else 0.0

    def is_calm(self) -> bool:
        """Tell whether nobody was refused lately."""
        return self.clock() > self._refused_at + _CALM_S

    @contextmanager
    def arriving(
        self, queue: QueueCapacity, num_views: int, work: Work, deadline: float
    ) -> Iterator[InFlight]:
        """Count an upload as in flight from its headers on.

        All views must fit: never are fewer answered than were asked for. A body that takes long
        to arrive is counted no longer, until `working` takes it in again.

        Raises:
            Overloaded: it would be late, or too much is waiting.
            NotReady: the queue is closed.
        """
        upload = InFlight(queue, num_views, deadline, work)
        self._enter(upload)
        self._arriving.append(upload)
        try:
            yield upload
        finally:
            self._leave(upload)

    @contextmanager
    def working(self, arrived: InFlight, work: Work) -> Iterator[InFlight]:
        """Count an upload as in flight from the moment when its file is there.

        The file takes over what `arriving` counts. Further files of the same request, and one
        that was slow to arrive, are admitted anew.

        Raises:
            Overloaded: it would be late, or too much is waiting.
            NotReady: the queue is closed.
        """
        if arrived.is_begun or not arrived.is_counted:
            upload = InFlight(arrived.queue, arrived.num_views, arrived.deadline, work)
            self._enter(upload)
        else:
            upload = arrived
            self._resize(upload, work)
        arrived.is_begun = True
        upload.is_begun = True
        try:
            yield upload
        finally:
            self._leave(upload)

    @contextmanager
    def learning(self, upload: InFlight) -> Iterator[None]:
        """Compare the time of an answer, or of one that came too late, with its estimate."""
        try:
            yield
        except DeadlineExceeded:
            self._learn(upload)
            raise
        self._learn(upload)

    def _enter(self, upload: InFlight) -> None:
        """Admit an upload, or raise `Overloaded` or `NotReady`."""
        now = self._note_time()
        self._drop_slow_arrivals(now)
        upload.queue.check_open()
        upload.ahead_s = self._backlog_us / _MICROSECONDS
        late_s = now + self.pace.seconds(now, upload.ahead_s + upload.work.own_s) - upload.deadline
        if not upload.queue.fits(upload.num_views):
            late_s = max(0.0, self.backlog_s)
            self._refused_at = now
            raise Overloaded(
                "More images are waiting than may wait.", retry_after_s=max(1, math.ceil(late_s))
            )
        if late_s > 0 and self.num_in_flight:
            self._refused_at = now
            raise Overloaded(
                "The answer could not be there in time.", retry_after_s=max(1, math.ceil(late_s))
            )
        self._count(upload, now)

    def _count(self, upload: InFlight, now: float) -> None:
        upload.since = now
        upload.shared_us = round(upload.work.shared_s * _MICROSECONDS)
        upload.is_counted = True
        upload.queue.hold(upload.num_views)
        self.num_in_flight += 1
        self._backlog_us += upload.shared_us
        upload.stalled_s = self._stalls.total_s
        if not self._is_beating:
            self._is_beating = True
            self.call_later(BEAT_S, self._beat)

    def _resize(self, upload: InFlight, work: Work) -> None:
        """Count an upload whose file is there by its own length, and its time from now on."""
        self._backlog_us -= upload.shared_us
        upload.work = work
        upload.ahead_s = self._backlog_us / _MICROSECONDS
        upload.shared_us = round(work.shared_s * _MICROSECONDS)
        self._backlog_us += upload.shared_us
        upload.since = self._note_time()
        upload.stalled_s = self._stalls.total_s

    def _leave(self, upload: InFlight) -> None:
        """Count an upload no longer; may be called again."""
        if upload.is_counted:
            upload.is_counted = False
            upload.queue.release(upload.num_views)
            self.num_in_flight -= 1
            self._backlog_us -= upload.shared_us

    def _drop_slow_arrivals(self, now: float) -> None:
        """Leave out bodies that have been on their way for long."""
        while self._arriving and (
            self._arriving[0].is_begun or self._arriving[0].since <= now - _BRISK_S
        ):
            upload = self._arriving.popleft()
            if not upload.is_begun:
                self._leave(upload)

    def _learn(self, upload: InFlight) -> None:
        if not upload.is_typical:
            return
        now = self._note_time()
        took_s = now - upload.since - (self._stalls.total_s - upload.stalled_s)
        self.pace.observe(now, upload.ahead_s + upload.work.own_s, took_s)
        share = 1 - _MEMORY if self._mean_shared_s else 1.0
        self._mean_shared_s += share * (upload.work.shared_s - self._mean_shared_s)

    def _note_time(self) -> float:
        """Return the time, and look whether the process stood still before it."""
        now = self.clock()
        if not self._is_beating:
            self._stalls.rest()
        self._stalls.beat(now, self.processor_clock())
        return now

    def _beat(self) -> None:
        """Watch for stalls and slow bodies while anything is in flight."""
        self._drop_slow_arrivals(self._note_time())
        self._is_beating = self.num_in_flight > 0
        if self._is_beating:
            self.call_later(BEAT_S, self._beat)
