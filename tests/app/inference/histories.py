"""A discrete-event model of a service under load, in any weather, that reads no clock.

Uploads arrive, wait in one queue, and are served by a few threads, as in the service. `Admission`,
`LatencyBias`, `DecodeTimes`, `LinearTime` and `StallWatch` are the service's own; only time, the
arrivals and the machine's weather are simulated.
"""

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from app.errors import DeadlineExceeded, Overloaded
from app.inference.admission import Admission, InFlight, Work
from app.inference.queue_capacity import QueueCapacity
from app.inference.step_times import DecodeTimes, LinearTime

OVERHEAD_S = 0.003
"""From the end of a run to its answer."""


@dataclass(frozen=True)
class Weather:
    """A time in which all work takes `factor` times as long; infinity stops the whole process."""

    begin: float
    end: float
    factor: float


@dataclass(frozen=True)
class Load:
    """What is asked: at Poisson times, or by connections that each ask again at once."""

    rate: float = 0.0
    connections: int = 0
    deadline_s: float | None = 0.5
    until: float = 20.0


@dataclass(frozen=True)
class Machine:
    """What serves: threads, and the seconds that one upload takes, with their spread."""

    threads: int = 2
    decode_s: float = 0.010
    run_s: float = 0.025
    spread: float = 0.2
    first_guess: float = 1.0
    """Times the true seconds that estimates begin with."""
    weather: tuple[Weather, ...] = ()

    @property
    def capacity(self) -> float:
        """Return the uploads that can be answered in a second of fair weather."""
        return self.threads / (self.decode_s + self.run_s + OVERHEAD_S)

    def end_of(self, start: float, seconds: float) -> float:
        """Return when work ends that takes so long in fair weather."""
        for spell in self.weather:
            if spell.end <= start:
                continue
            if start < spell.begin:
                if seconds <= spell.begin - start:
                    return start + seconds
                seconds -= spell.begin - start
                start = spell.begin
            done_s = (spell.end - start) / spell.factor
            if seconds <= done_s:
                return start + seconds * spell.factor
            seconds -= done_s
            start = spell.end
        return start + seconds

    def awake(self, time: float) -> float:
        """Return when the process next does anything, from a moment on."""
        for spell in self.weather:
            if math.isinf(spell.factor) and spell.begin <= time < spell.end:
                return spell.end
        return time


@dataclass(frozen=True)
class Ending:
    """How one request ended."""

    due: float
    status: int
    seconds: float
    found_nothing_in_flight: bool


@dataclass(eq=False)
class _Request:
    due: float
    connection: int | None
    upload: InFlight | None = None
    found_nothing: bool = False
    is_settled: bool = False
    exits: ExitStack = field(default_factory=ExitStack)


class History:
    """One seeded run of the model."""

    def __init__(self, machine: Machine, load: Load, seed: int) -> None:
        self.machine = machine
        self.load = load
        self.now = 0.0
        self.endings: list[Ending] = []
        self.admission = Admission(
            self._call_later, clock=lambda: self.now, processor_clock=self._processor_s
        )
        self.queue_capacity = QueueCapacity(1000)
        self._random = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._waiting: deque[_Request] = deque()
        self._num_busy = 0
        self._worked_s = 0.0
        self._decode_times = DecodeTimes()
        for _ in range(60):
            self._decode_times.observe(1, machine.decode_s * machine.first_guess)
        self._run_time = LinearTime(machine.run_s * machine.first_guess)

    def run(self) -> "History":
        """Simulate until all is answered."""
        for due in self._arrivals():
            self._at(due, partial(self._ask, _Request(due, None)))
        for number in range(self.load.connections):
            due = self._random.uniform(0, 0.05)
            self._at(due, partial(self._ask, _Request(due, number)))
        while self._events:
            self.now, _, event = heapq.heappop(self._events)
            event()
        return self

    def good_per_second(self, begin: float, end: float, within_s: float = math.inf) -> float:
        """Count the answers to requests that were due in a time, and in time, for each second."""
        good = sum(
            begin <= ending.due < end and ending.status == 200 and ending.seconds <= within_s
            for ending in self.endings
        )
        return good / (end - begin)

    def _arrivals(self) -> Iterator[float]:
        due = 0.0
        while self.load.rate:
            due += self._random.expovariate(self.load.rate)
            if due >= self.load.until:
                return
            yield due

    def _at(self, time: float, event: Callable[[], None]) -> None:
        awake = self.machine.awake(time)
        heapq.heappush(self._events, (awake, next(self._numbers), event))

    def _call_later(self, delay_s: float, function: Callable[[], None]) -> None:
        self._at(self.now + delay_s, function)

    def _processor_s(self) -> float:
        return self._worked_s + 0.001 * self.now

    def _work(self) -> Work:
        decode_s = self._decode_times.seconds(1)
        run_s = self._run_time.seconds(1)
        return Work(decode_s + run_s, (decode_s + run_s) / self.machine.threads)

    def _ask(self, request: _Request) -> None:
        deadline = self.now + (self.load.deadline_s or 30.0)
        request.found_nothing = self.admission.num_in_flight == 0
        work = self._work()
        try:
            arrived = request.exits.enter_context(
                self.admission.arriving(self.queue_capacity, 1, work, deadline)
            )
            request.upload = request.exits.enter_context(self.admission.working(arrived, work))
        except Overloaded:
            self._settle(request, 503)
            return
        self._waiting.append(request)
        self._at(deadline, lambda: self._expire(request))
        self._start()

    def _start(self) -> None:
        while self._waiting and self._num_busy < self.machine.threads:
            request = self._waiting.popleft()
            if request.is_settled:
                continue
            assert request.upload is not None
            if request.upload.start_by(request.upload.work.own_s) <= self.now:
                self._settle(request, 504)
                continue
            self._serve(request)

    def _serve(self, request: _Request) -> None:
        self._num_busy += 1
        scale = self._random.lognormvariate(0, self.machine.spread)
        decoded = self.machine.end_of(self.now, self.machine.decode_s * scale)
        ended = self.machine.end_of(decoded, self.machine.run_s * scale)
        decode_s = decoded - self.now
        run_s = ended - decoded

        def end() -> None:
            self._num_busy -= 1
            self._worked_s += scale * (self.machine.decode_s + self.machine.run_s)
            if not request.is_settled:
                self._decode_times.observe(1, decode_s)
                self._run_time.observe(1, run_s)
                self._settle(request, 200)
            self._start()

        self._at(ended + OVERHEAD_S, end)

    def _expire(self, request: _Request) -> None:
        if not request.is_settled:
            self._settle(request, 504)

    def _settle(self, request: _Request, status: int) -> None:
        request.is_settled = True
        if request.upload is not None:
            try:
                with self.admission.learning(request.upload):
                    if status == 504:
                        raise DeadlineExceeded
            except DeadlineExceeded:
                pass
        request.exits.close()
        self.endings.append(
            Ending(request.due, status, self.now - request.due, request.found_nothing)
        )
        if request.connection is not None and self.now < self.load.until:
            again = self.now + (0.02 if status == 503 else 0.0)
            self._at(again, lambda: self._ask(_Request(again, request.connection)))
