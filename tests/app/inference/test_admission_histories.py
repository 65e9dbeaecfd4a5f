"""What admission promises, over thousands of simulated histories of load and weather."""

import math
import random
from itertools import pairwise

import pytest

from app.errors import Overloaded
from app.inference.admission import Admission, Clock, Work
from app.inference.queue_capacity import QueueCapacity
from tests.app.inference.histories import Ending, History, Load, Machine, Weather

SEEDS = range(3)
DEADLINE_S = 0.5


def answered_per_second(machine: Machine, load: Load, seed: int) -> float:
    return History(machine, load, seed).run().good_per_second(3, load.until)


def any_history(seed: int) -> History:
    """Draw a machine, its weather and its load, and simulate three seconds of them."""
    draw = random.Random(seed)
    begin = draw.uniform(0, 2)
    spell = Weather(begin, begin + draw.uniform(0.1, 4), draw.choice((2, 5, 12, 40, math.inf)))
    machine = Machine(
        threads=draw.choice((1, 2, 4)),
        run_s=draw.choice((0.01, 0.03, 0.1)),
        spread=draw.uniform(0, 1),
        first_guess=draw.choice((0.1, 1, 10, 100)),
        weather=(spell,),
    )
    connections = draw.choice((0, 0, 1, 4, 16))
    load = Load(
        rate=0 if connections else draw.uniform(0.1, 1.5) * machine.capacity,
        connections=connections,
        deadline_s=draw.choice((0.05, 0.2, 0.5, 2)),
        until=3,
    )
    return History(machine, load, seed).run()


def gap_between_chances(endings: list[Ending], begin: float, end: float) -> float:
    """Return the longest time in which no request was admitted."""
    admitted = sorted(ending.due for ending in endings if ending.status != 503)
    times = [begin, *(due for due in admitted if begin <= due < end), end]
    return max(later - sooner for sooner, later in pairwise(times))


@pytest.mark.slow
def test_a_request_that_finds_nothing_in_flight_is_admitted_whatever_happened_before() -> None:
    num_lucky = 0
    for seed in range(1000):
        history = any_history(seed)
        lucky = [ending for ending in history.endings if ending.found_nothing_in_flight]
        num_lucky += len(lucky)
        assert all(ending.status != 503 for ending in lucky), f"history {seed}"
        assert history.admission.num_in_flight == 0
        assert history.admission.backlog_s == 0.0

    assert num_lucky > 1000


@pytest.mark.parametrize("first_guess", [0.2, 1, 6])
def test_sixteen_connections_with_a_deadline_get_the_answers_of_sixteen_without(
    first_guess: float,
) -> None:
    machine = Machine(first_guess=first_guess)
    for seed in SEEDS:
        patient = Load(connections=16, deadline_s=None, until=10)
        hasty = Load(connections=16, deadline_s=DEADLINE_S, until=10)

        assert answered_per_second(machine, hasty, seed) >= 0.95 * answered_per_second(
            machine, patient, seed
        )


@pytest.mark.parametrize("times", [1.5, 3])
def test_goodput_stays_at_the_capacity_if_more_is_asked(times: float) -> None:
    machine = Machine()
    for seed in SEEDS:
        load = Load(rate=times * machine.capacity, until=15)
        history = History(machine, load, seed).run()

        assert history.good_per_second(3, 15, DEADLINE_S) >= 0.92 * machine.capacity


def test_under_a_lasting_shortage_of_cores_most_of_what_they_can_answer_is_answered() -> None:
    machine = Machine(weather=(Weather(5, 30, 2),))
    for seed in SEEDS:
        load = Load(rate=0.75 * machine.capacity, until=30)
        history = History(machine, load, seed).run()

        assert history.good_per_second(7, 29, DEADLINE_S) >= 0.8 * machine.capacity / 2


SPELLS = {
    "stopped for 4 s": (Weather(10, 14, math.inf), 1.0),
    "stopped for 0.5 s": (Weather(10, 10.5, math.inf), 1.0),
    "8 s of hogs": (Weather(10, 18, 5), 1.0),
    "8 s of worse hogs": (Weather(10, 18, 12), 1.0),
    "a start beside hogs": (Weather(0, 8, 5), 5.0),
    "a start beside worse hogs": (Weather(0, 8, 20), 30.0),
}
"""Disturbances, and the times too long that the first estimates are."""


@pytest.mark.parametrize("name", SPELLS)
@pytest.mark.parametrize("rate", [5, 10, 40])
def test_goodput_is_back_two_seconds_after_a_disturbance(name: str, rate: float) -> None:
    weather, first_guess = SPELLS[name]
    machine = Machine(first_guess=first_guess, weather=(weather,))
    begin = weather.end + 2
    for seed in range(6):
        history = History(machine, Load(rate=rate, until=begin + 4), seed).run()
        due = sum(begin <= ending.due < begin + 4 for ending in history.endings)

        assert 4 * history.good_per_second(begin, begin + 4, DEADLINE_S) >= 0.9 * due


@pytest.mark.parametrize("seed", SEEDS)
def test_nobody_is_locked_out_for_long_in_bad_weather(seed: int) -> None:
    machine = Machine(first_guess=50, weather=(Weather(5, 15, 40),))
    history = History(machine, Load(rate=30, until=20), seed).run()

    assert gap_between_chances(history.endings, 0, 20) < 2


QUEUE = QueueCapacity(1)
WORK = Work(own_s=0.1, shared_s=0.1)


def admission_by(clock: Clock) -> Admission:
    return Admission(
        call_later=lambda _delay_s, _function: None, clock=clock, processor_clock=lambda: 0.0
    )


def test_the_service_is_calm_again_a_second_after_its_last_refusal() -> None:
    now_s = 0.0
    admission = admission_by(lambda: now_s)
    with admission.arriving(QUEUE, 1, WORK, deadline=10.0):
        assert admission.is_calm()
        with pytest.raises(Overloaded), admission.arriving(QUEUE, 1, WORK, deadline=10.0):
            pass
        assert not admission.is_calm()
    now_s = 1.1

    assert admission.is_calm()


def test_the_capacity_after_the_first_answer_is_the_one_after_many() -> None:
    now_s = 0.0
    admission = admission_by(lambda: now_s)
    capacities = []
    for _ in range(30):
        with (
            admission.arriving(QUEUE, 1, WORK, deadline=100.0) as upload,
            admission.learning(upload),
        ):
            now_s += 0.1
        capacities.append(admission.capacity_per_second)

    assert capacities == pytest.approx([10.0] * 30, rel=0.2)
