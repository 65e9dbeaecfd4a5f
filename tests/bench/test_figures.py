"""The arithmetic of `make bench`."""

import math
from itertools import pairwise

import pytest

from bench.figures import goodput, medians, percentile, phase_seconds, poisson_times


def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1, 50, 99, 100]


def test_a_percentile_of_nothing_is_no_number() -> None:
    assert math.isnan(percentile([], 0.5))


def test_goodput_counts_what_was_there_by_the_deadline() -> None:
    assert goodput([0.1, 0.5, 0.500001, 3.0], deadline_s=0.5, duration_s=4.0) == 0.5


def test_medians_are_taken_over_the_rounds_that_have_the_figure() -> None:
    rounds = [{"a": 3.0, "b": math.nan}, {"a": 1.0, "b": 7.0}, {"a": 2.0, "c": math.nan}]
    assert medians(rounds) == {"a": 2.0, "b": 7.0}


def test_poisson_arrivals_come_at_the_rate_and_forget_the_last_one() -> None:
    times = list(poisson_times(50.0, 400.0, seed=3))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
    assert times == sorted(times)
    assert times[-1] < 400.0
    assert len(times) == pytest.approx(20_000, rel=0.03)
    assert deviation == pytest.approx(mean, rel=0.05)  # exponential gaps: the deviation is the mean


def test_the_same_seed_gives_the_same_arrivals() -> None:
    assert list(poisson_times(5.0, 9.0, seed=1)) == list(poisson_times(5.0, 9.0, seed=1))
    assert list(poisson_times(5.0, 9.0, seed=1)) != list(poisson_times(5.0, 9.0, seed=2))


def test_phases_grow_with_the_time_there_is_and_stay_within_bounds() -> None:
    lengths = [phase_seconds(minutes, rounds=3, servers=8) for minutes in (1, 20, 30, 500)]
    assert lengths == sorted(lengths)
    assert (lengths[0], lengths[-1]) == (1.0, 6.0)
    assert lengths[1] < lengths[2]
