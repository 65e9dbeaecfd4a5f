"""How recovery is counted from a stream of answers."""

import pytest

from bench.weather import AFTER_S, Answer, recovery_s


def stream(*, bad_until: float) -> list[Answer]:
    """Ten requests a second for 14 s, refused until a time and answered from then on."""
    times = [number / 10 for number in range(140)]
    return [Answer(due, 503 if due < bad_until else 200, 0.1) for due in times]


def test_a_server_that_answers_all_along_needs_no_time() -> None:
    assert recovery_s(stream(bad_until=0), ended=1.0) == 0


@pytest.mark.parametrize("seconds", [0.5, 2.0, 5.0])
def test_recovery_lasts_until_the_last_window_with_too_few_answers(seconds: float) -> None:
    assert recovery_s(stream(bad_until=1 + seconds), ended=1.0) == pytest.approx(seconds, abs=0.3)


def test_late_answers_are_no_recovery() -> None:
    late = [Answer(number / 10, 200, 0.6) for number in range(140)]

    assert recovery_s(late, ended=1.0) == pytest.approx(AFTER_S - 1, abs=0.3)
