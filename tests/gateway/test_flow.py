"""From a sender to an archive through a real service: what is asked, sent, and never sent twice."""

import json
import logging
import ssl
import time
from operator import methodcaller
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway import dead_letters
from gateway.database import DatabaseError
from gateway.node import running_node
from gateway.settings import Tls
from gateway.tls import server_context, server_options
from tests.bundles import write_made_bundle
from tests.gateway.certificates import make_certificates, tls_of
from tests.gateway.conftest import film
from tests.gateway.hospital import RULE, Hospital
from tests.gateway.peers import CAPTURE, REPORT, Shelf, dimse_archive, serving, stow_archive
from tests.pacs.node import Gateway
from tests.pacs.service import RunningService
from tests.server import Server, free_port
from tests.waiting import wait_until

LABELS = {"positive", "negative"}
LONGEST_OBEYED_S = 900


def test_a_film_has_its_report_in_the_archive_and_a_row_without_its_uids(
    hospital: Hospital, service: Server
) -> None:
    node = hospital.open()
    hospital.send(film(1))
    wait_until(lambda: hospital.states() == ["confirmed"])

    (report,) = hospital.shelf.held.values()
    assert (report.SOPClassUID, report.StudyInstanceUID) == (REPORT, "1.2.3.1")
    (row,) = hospital.rows("SELECT * FROM answers")
    assert (row["model"], row["view"], row["sex"], row["age_years"]) == ("bright", "PA", "F", 41)
    assert row["label"] in LABELS
    assert row["instance_hash"] == node.parts.key.hash("1.2.3.1.1.1")
    assert "1.2.3.1" not in json.dumps(row)
    events = hospital.rows("SELECT state FROM answer_events ORDER BY id")
    assert [event["state"] for event in events] == ["sent", "confirmed"]
    wait_until(lambda: list((hospital.folder / "spool").iterdir()) == [])
    wait_until(lambda: row["trace_id"] in service.log.read_text())
    assert "1.2.3.1" not in service.log.read_text()


def test_a_silent_rule_records_and_sends_nothing(hospital: Hospital) -> None:
    hospital.open(rules=[{"name": "quiet", "silent": True, "destinations": ["archive"]}])
    hospital.send(film(2))
    wait_until(lambda: hospital.reasons() == [("scored", None)])
    assert [row["silent"] for row in hospital.rows("SELECT silent FROM answers")] == [1]
    wait_until(lambda: list((hospital.folder / "spool").iterdir()) == [])
    assert (hospital.shelf.sent, hospital.states()) == ([], [])


def test_a_report_and_a_picture_travel_together(hospital: Hospital) -> None:
    hospital.open(rules=[RULE | {"results": ["sr", "sc"]}])
    hospital.send(film(3))
    wait_until(lambda: hospital.states() == ["confirmed"] * 2)
    assert {held.SOPClassUID for held in hospital.shelf.held.values()} == {REPORT, CAPTURE}
    assert len(hospital.rows("SELECT id FROM answers")) == 1


def test_what_the_service_refuses_is_skipped_with_its_word(hospital: Hospital) -> None:
    hospital.open()
    hospital.send(film(4, BodyPartExamined="HIP"), film(5, ViewPosition="LL"), film(6))
    wait_until(lambda: hospital.states() == ["confirmed"])
    wait_until(
        lambda: (
            sorted(hospital.reasons(), key=str)
            == [("scored", None), ("skipped", "not_a_chest"), ("skipped", "not_frontal")]
        )
    )


def test_a_result_that_comes_back_is_not_scored(hospital: Hospital) -> None:
    hospital.open()
    hospital.send(film(7, Manufacturer="cxr-serve"), film(8, Modality="PR"))
    wait_until(lambda: hospital.reasons() == [("skipped", "own_result")] * 2)


def test_films_wait_for_a_service_that_is_away(tmp_path: Path) -> None:
    write_made_bundle(tmp_path / "store", "bright", 1)
    service = RunningService(tmp_path / "service", store=tmp_path / "store", default_model="bright")
    hospital = Hospital(tmp_path / "node", service.url)
    with hospital.stack:
        hospital.open()
        hospital.send(film(9))
        wait_until(lambda: hospital.reasons() == [("received", "unreachable")])
        hospital.stack.callback(service.stop)
        service.start()
        wait_until(lambda: hospital.states() == ["confirmed"], seconds=60)


def test_a_wrong_model_is_our_fault_and_not_the_films(hospital: Hospital) -> None:
    hospital.open(rules=[RULE | {"model": "nobody"}])
    hospital.send(film(10))
    wait_until(lambda: hospital.reasons() == [("received", "unknown_model")])


def test_nothing_is_sent_again_if_only_the_answer_was_lost(hospital: Hospital) -> None:
    hospital.shelf.manner = "store and hang up"
    hospital.open()
    hospital.send(film(11))
    wait_until(lambda: hospital.states() == ["confirmed"])
    assert len(hospital.shelf.sent) == 1


def test_a_report_is_sent_again_if_the_archive_has_not_got_it(hospital: Hospital) -> None:
    hospital.shelf.manner = "hang up"
    hospital.open()
    hospital.send(film(12))
    wait_until(lambda: len(hospital.shelf.sent) >= 1)
    hospital.shelf.manner = "store"
    wait_until(lambda: hospital.states() == ["confirmed"])
    assert len(set(hospital.shelf.sent)) == 1
    assert hospital.shelf.asked >= 2


def test_a_report_that_was_accepted_and_is_not_held_is_sent_again(hospital: Hospital) -> None:
    hospital.shelf.manner = "lose"
    hospital.open()
    hospital.send(film(13))
    wait_until(lambda: len(hospital.shelf.sent) >= 2)
    hospital.shelf.manner = "store"
    wait_until(lambda: hospital.states() == ["confirmed"])
    assert hospital.shelf.asked >= 5


def test_an_archive_that_forgets_for_days_gets_a_dead_letter_and_no_more(
    hospital: Hospital,
) -> None:
    hospital.shelf.manner = "lose"
    url = hospital.stack.enter_context(stow_archive(hospital.shelf))
    hospital.run(hospital.settings({"stow_url": url, "give_up_days": 1e-9}))
    hospital.send(film(31))
    wait_until(lambda: hospital.states() == ["dead"])
    assert hospital.rows("SELECT reason FROM deliveries") == [{"reason": "not_held"}]
    assert len(hospital.shelf.sent) == 1


@pytest.mark.parametrize("confirm", ["query", "none"])
def test_a_page_for_people_is_not_taken_for_an_archives_yes(
    hospital: Hospital, confirm: str
) -> None:
    hospital.shelf.manner = "page"
    url = hospital.stack.enter_context(stow_archive(hospital.shelf))
    hospital.run(hospital.settings({"stow_url": url, "confirm": confirm}))
    hospital.send(film(32))
    reasons = "SELECT state, reason FROM deliveries"
    wait_until(lambda: hospital.rows(reasons) == [{"state": "scored", "reason": "no_dicomweb"}])
    hospital.shelf.manner = "store"
    wait_until(lambda: hospital.states() == ["confirmed"])


@pytest.mark.parametrize("way", ["STOW-RS", "C-STORE"])
def test_a_report_that_the_archive_calls_a_duplicate_is_there(hospital: Hospital, way: str) -> None:
    hospital.shelf.manner = "duplicate"
    if way == "STOW-RS":
        hospital.open()
    else:
        port = hospital.stack.enter_context(dimse_archive(hospital.shelf))
        hospital.run(hospital.settings({"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": port}))
    hospital.send(film(33))
    wait_until(lambda: hospital.states() == ["confirmed"])


def test_everything_goes_on_after_the_disk_took_nothing_for_a_while(
    hospital: Hospital, caplog: pytest.LogCaptureFixture
) -> None:
    hospital.shelf.manner = "refuse"
    rules = [{"name": "wrong", "view": ["AP"], "silent": True, "model": "nobody"}, RULE]
    node = hospital.open(rules=rules)
    hospital.send(film(34), film(35, ViewPosition="AP"))
    wait_until(lambda: len(hospital.shelf.sent) >= 1)
    wait_until(lambda: ("received", "unknown_model") in hospital.reasons())
    writer = node.parts.database._writer_connection
    writer.execute("PRAGMA query_only = 1")  # each commit fails, as on a disk that is full
    troubled = {"gateway.score", "gateway.deliver"}
    wait_until(lambda: troubled <= {one.name for one in caplog.records}, seconds=60)
    writer.execute("PRAGMA query_only = 0")
    hospital.shelf.manner = "store"
    wait_until(lambda: hospital.states() == ["confirmed"])
    hospital.send(film(36))
    wait_until(lambda: hospital.states() == ["confirmed"] * 2)
    assert node.faults == []


def test_a_service_that_asks_for_a_year_of_patience_is_asked_again_sooner(
    hospital: Hospital,
) -> None:
    async def refuse(_request: Request) -> Response:
        return JSONResponse({}, status_code=503, headers={"retry-after": "9" * 400})

    route = Route("/predict/dicom", refuse, methods=["POST"])
    url = hospital.stack.enter_context(serving(Starlette(routes=[route])))
    node = hospital.open(service={"url": url})
    hospital.send(film(37))
    wait_until(lambda: hospital.reasons() == [("received", "http_503")])
    (row,) = hospital.rows("SELECT next_at FROM instances")
    assert 0 < row["next_at"] - time.time() <= LONGEST_OBEYED_S
    assert node.faults == []


def test_a_second_gateway_on_the_same_folder_is_refused_and_deletes_nothing(
    hospital: Hospital,
) -> None:
    node = hospital.open()
    held = hospital.folder / "spool/held.dcm"
    held.write_bytes(b"an instance whose row is being committed")
    with (
        pytest.raises(DatabaseError, match="another gateway"),
        running_node(node.parts.settings),
    ):
        pass
    assert held.exists()


def test_an_archive_without_room_is_tried_again(hospital: Hospital) -> None:
    hospital.shelf.manner = "refuse"
    hospital.open()
    hospital.send(film(14))
    wait_until(lambda: len(hospital.shelf.sent) >= 1)
    hospital.shelf.manner = "store"
    wait_until(lambda: hospital.states() == ["confirmed"])


def test_a_refused_report_becomes_a_dead_letter_that_can_be_sent_again(hospital: Hospital) -> None:
    hospital.shelf.manner = "reject"
    node = hospital.open()
    hospital.send(film(15))
    wait_until(lambda: hospital.states() == ["dead"])
    with node.parts.database.reading() as connection:
        (letter,) = dead_letters.list_dead(connection)
    assert (letter.target, letter.reason) == ("archive", "status_C001")
    hospital.shelf.manner = "store"
    assert node.parts.database.write(
        "revived", lambda connection: dead_letters.revive(connection, letter.number)
    )
    wait_until(lambda: hospital.states() == ["confirmed"])


def test_a_later_film_of_a_study_supersedes_an_unsent_one_that_is_no_better(
    hospital: Hospital,
) -> None:
    node = hospital.open()
    node.deliverers[0].stop()  # nothing is sent meanwhile
    for number, view in ((16, "AP"), (17, "PA"), (18, "AP")):
        hospital.send(film(number, StudyInstanceUID="1.2.3.16", ViewPosition=view))
        wait_until(lambda: ("received", None) not in hospital.reasons())
    wait_until(lambda: hospital.states() == ["superseded", "scored", "scored"])
    assert node.parts.metrics.superseded._value.get() == 1


def test_an_archive_that_was_away_gets_what_waited(hospital: Hospital) -> None:
    port = free_port()
    node = hospital.run(hospital.settings({"stow_url": f"http://127.0.0.1:{port}"}))
    hospital.send(film(27), film(28), film(29))
    wait_until(lambda: node.parts.metrics.retried.labels("archive")._value.get() >= 1)
    wait_until(lambda: hospital.states() == ["scored"] * 3)
    uncertain = "SELECT COUNT(*) AS n FROM deliveries WHERE reason IS NOT NULL AND uncertain = 1"
    wait_until(lambda: hospital.rows(uncertain) == [{"n": 0}])  # it was never reached
    with stow_archive(hospital.shelf, port=port):
        wait_until(lambda: hospital.states() == ["confirmed"] * 3, seconds=60)
    assert len(hospital.shelf.sent) == 3


def test_a_restart_asks_before_it_sends_what_may_have_arrived(hospital: Hospital) -> None:
    node = hospital.open()
    hospital.send(film(19))
    wait_until(lambda: hospital.states() == ["confirmed"])
    content = next(iter(hospital.shelf.held))
    node.parts.database.write(
        "test",
        lambda connection: connection.execute(
            "UPDATE deliveries SET state = 'scored', uncertain = 1, content = x'00'"
        ),
    )
    wait_until(lambda: hospital.states() == ["confirmed"])
    assert hospital.shelf.sent == [content]


@pytest.mark.parametrize("manner", ["store", "store and hang up"])
def test_reports_go_by_c_store_and_c_find_too(hospital: Hospital, manner: Any) -> None:
    hospital.shelf.manner = manner
    port = hospital.stack.enter_context(dimse_archive(hospital.shelf))
    place = {"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": port}
    hospital.run(hospital.settings(place, rules=[RULE | {"results": ["sr", "sc"]}]))
    hospital.send(film(20))
    wait_until(lambda: hospital.states() == ["confirmed"] * 2)
    assert len(hospital.shelf.sent) == 2


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
        ("ISO_IR 144", "Люкceмбypг"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    ],
)
def test_names_of_every_script_survive_the_way(hospital: Hospital, charset: Any, name: str) -> None:
    hospital.open()
    hospital.send(film(24, SpecificCharacterSet=charset, PatientName=name))
    wait_until(lambda: hospital.states() == ["confirmed"])
    (report,) = hospital.shelf.held.values()
    assert (report.SpecificCharacterSet, str(report.PatientName)) == ("ISO_IR 192", name)


def test_an_archive_that_can_not_be_asked_is_believed(hospital: Hospital) -> None:
    url = hospital.stack.enter_context(stow_archive(hospital.shelf))
    hospital.run(hospital.settings({"stow_url": url, "confirm": "none"}))
    hospital.send(film(25))
    wait_until(lambda: hospital.states() == ["confirmed"])
    assert (len(hospital.shelf.sent), hospital.shelf.asked) == (1, 0)


def test_a_refusal_by_c_store_is_read(hospital: Hospital) -> None:
    hospital.shelf.manner = "reject"
    port = hospital.stack.enter_context(dimse_archive(hospital.shelf))
    place = {"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": port}
    hospital.run(hospital.settings(place))
    hospital.send(film(21))
    wait_until(lambda: hospital.states() == ["dead"])


def test_results_travel_by_tls_to_archives_that_ask_for_a_certificate(
    hospital: Hospital, tmp_path: Path
) -> None:
    make_certificates(tmp_path)
    node, peer = tls_of(tmp_path, "node"), Tls.model_validate(tls_of(tmp_path, "peer"))
    url = hospital.stack.enter_context(stow_archive(hospital.shelf, **server_options(peer)))
    second = Shelf()
    port = hospital.stack.enter_context(dimse_archive(second, tls=server_context(peer)))
    dimse = {"name": "second", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": port}
    destinations = [{"name": "archive", "stow_url": url, "tls": node}, {**dimse, "tls": node}]
    rule = RULE | {"destinations": ["archive", "second"]}
    hospital.run(hospital.settings({}, destinations=destinations, rules=[rule]))
    hospital.send(film(26))
    wait_until(lambda: hospital.states() == ["confirmed"] * 2)
    assert len(hospital.shelf.held) == len(second.held) == 1


def test_http_by_tls_wants_a_certificate(tmp_path: Path, service: Server) -> None:
    make_certificates(tmp_path)
    gateway = Gateway(tmp_path / "run", service.url, [], [{"name": "all", "silent": True}])
    gateway.http = {"tls": {name: str(path) for name, path in tls_of(tmp_path, "node").items()}}
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    gateway.launch()
    try:
        context.load_cert_chain(tmp_path / "peer.pem", tmp_path / "peer.key")
        address = f"https://127.0.0.1:{gateway.http_port}/livez"
        wait_until(lambda: answers(address, context))
        assert not answers(address, ssl.create_default_context(cafile=str(tmp_path / "ca.pem")))
    finally:
        gateway.kill()


def answers(address: str, context: ssl.SSLContext) -> bool:
    """Whether HTTPS answers to a client with this context."""
    try:
        return httpx.get(address, verify=context).status_code == 200
    except httpx.TransportError:
        return False


def test_the_results_cannot_be_changed(hospital: Hospital) -> None:
    node = hospital.open()
    hospital.send(film(22))
    wait_until(lambda: hospital.states() == ["confirmed"])
    for statement in ("UPDATE answers SET label = 'positive'", "DELETE FROM answer_events"):
        with pytest.raises(Exception, match="append-only"):
            node.parts.database.write("test", methodcaller("execute", statement))


def test_the_log_names_no_instance(hospital: Hospital, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="gateway"):
        hospital.open()
        hospital.send(film(23))
        wait_until(lambda: hospital.states() == ["confirmed"])
    said = [record.getMessage() for record in caplog.records if record.name.startswith("gateway")]
    assert said
    assert "1.2.3.23" not in "".join(said)
