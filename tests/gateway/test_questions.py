"""The same image is answered once for each question, however often it comes."""

from typing import Any

from gateway.node import running_node
from tests.gateway.conftest import film
from tests.gateway.hospital import RULE, Hospital
from tests.gateway.peers import stow_archive
from tests.server import free_port
from tests.waiting import wait_until


def send_thrice(
    hospital: Hospital, place: dict[str, Any], *, state: str = "confirmed", **rule: Any
) -> int:
    """Send one film three times to a gateway with a rule; return how many answers there are."""
    with running_node(hospital.settings(place, rules=[RULE | rule])) as hospital.node:
        for _ in range(3):
            hospital.send(film(61))
        wait_until(lambda: hospital.reasons() == [("scored", None)])
        wait_until(lambda: set(hospital.states()) <= {state})
        return len(hospital.rows("SELECT id FROM answers"))


def test_a_film_is_answered_anew_if_its_rule_asks_something_else(hospital: Hospital) -> None:
    place = {"stow_url": hospital.stack.enter_context(stow_archive(hospital.shelf))}
    assert send_thrice(hospital, place, silent=True) == 1
    assert hospital.shelf.sent == []
    assert send_thrice(hospital, place) == 2
    assert len(hospital.shelf.sent) == 1
    assert send_thrice(hospital, place, prevalence=0.2) == 3
    assert len(set(hospital.shelf.sent)) == len(hospital.shelf.sent) == 2


def test_a_film_keeps_its_answer_if_other_rules_ask_the_same(hospital: Hospital) -> None:
    place = {"stow_url": hospital.stack.enter_context(stow_archive(hospital.shelf))}
    assert send_thrice(hospital, place) == 1
    assert send_thrice(hospital, place, name="another name") == 1
    assert send_thrice(hospital, place, silent=True) == 1
    assert len(hospital.shelf.sent) == 1


def test_a_film_whose_report_still_waits_is_answered_anew_too(hospital: Hospital) -> None:
    away = {"stow_url": f"http://127.0.0.1:{free_port()}", "timeout_seconds": 9}
    state = "scored"
    assert send_thrice(hospital, away, state=state) == 1
    assert send_thrice(hospital, away, state=state, prevalence=0.2) == 2
    assert hospital.shelf.sent == []
