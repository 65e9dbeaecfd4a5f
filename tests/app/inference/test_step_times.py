import random

import pytest

from app.inference.step_times import DecodeTimes, LinearTime


def test_a_line_is_learned_from_batches_of_several_sizes_despite_noise() -> None:
    draw, time = random.Random(0), LinearTime(1.0)
    for _ in range(400):
        images = draw.choice((1, 2, 4, 8))
        time.observe(images, (0.010 * images + 0.005) * draw.uniform(0.9, 1.1))

    assert time.seconds(1) == pytest.approx(0.015, rel=0.2)
    assert time.seconds(8) == pytest.approx(0.085, rel=0.2)


def test_batches_of_one_size_say_nothing_about_what_a_run_takes_by_itself() -> None:
    time = LinearTime(1.0)
    for _ in range(200):
        time.observe(4, 0.08)

    slope, start = time.line
    assert slope == pytest.approx(0.02, rel=0.05)
    assert start == pytest.approx(0.0, abs=0.005)


def test_one_stall_moves_the_estimate_only_a_little() -> None:
    time = LinearTime(0.01)
    for _ in range(100):
        time.observe(1, 0.01)
    time.observe(1, 30.0)

    assert time.seconds(1) < 0.012


def test_a_change_that_lasts_is_learned() -> None:
    time = LinearTime(0.01)
    for _ in range(200):
        time.observe(1, 0.5)

    assert time.seconds(1) == pytest.approx(0.5, rel=0.05)


def test_many_images_take_full_batches_and_a_rest() -> None:
    assert LinearTime(0.01, 0.005).seconds_of_many(9, 4) == pytest.approx(
        2 * LinearTime(0.01, 0.005).seconds(4) + 0.015
    )


def test_files_of_another_length_have_a_time_of_their_own() -> None:
    times = DecodeTimes()
    for _ in range(200):
        times.observe(100_000, 0.003)
        times.observe(10_000_000, 0.2)

    assert times.seconds(110_000) == pytest.approx(0.003, rel=0.1)
    assert times.seconds(12_000_000) == pytest.approx(0.2, rel=0.1)
    assert 0.003 < times.seconds(0) < 0.2
