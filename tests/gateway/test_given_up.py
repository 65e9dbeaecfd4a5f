"""What waits for a part that does not answer, or is no longer there, is given up in the end."""

import subprocess
import sys
import time
from functools import partial
from operator import methodcaller

from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway import dead_letters, instances
from gateway.instances import Waiting
from gateway.node import running_node
from gateway.queue_page import render_page
from gateway.receive import Incoming
from gateway.timeouts import MAX_TIMEOUTS
from tests.gateway.conftest import Reception, film
from tests.gateway.hospital import RULE, Hospital
from tests.gateway.peers import serving, stow_archive
from tests.server import ROOT, free_port
from tests.waiting import wait_until


def make_stalling_service(*stalling: bytes) -> Starlette:
    """A service that never answers about files with these bytes, and refuses all others."""

    async def answer(request: Request) -> Response:
        body = await request.body()
        if any(one in body for one in stalling):
            while (await request.receive())["type"] != "http.disconnect":
                pass
        problem = {"code": "not_a_chest", "detail": "", "request_id": ""}
        return JSONResponse(problem, status_code=422)

    return Starlette(routes=[Route("/predict/dicom", answer, methods=["POST"])])


def test_a_film_on_which_the_service_stalls_is_given_up_if_others_are_answered(
    hospital: Hospital,
) -> None:
    url = hospital.stack.enter_context(serving(make_stalling_service(b"1.2.3.41.1.1")))
    node = hospital.open(service={"url": url, "timeout_seconds": 1})
    hospital.send(film(41))
    pauses = []
    for tried in range(1, MAX_TIMEOUTS + 1):
        hospital.send(film(41 + tried))
        found = "SELECT next_at FROM instances WHERE id = 1 AND (timeouts = ? OR state = 'dead')"
        wait_until(lambda: bool(hospital.rows(found.replace("?", str(tried)))))  # noqa: B023
        pauses.append(hospital.rows("SELECT next_at FROM instances")[0]["next_at"] - time.time())
        node.parts.database.write(
            "test", methodcaller("execute", "UPDATE instances SET next_at = 0 WHERE id = 1")
        )
    assert hospital.reasons()[0] == ("dead", "no_answer_in_time")
    assert pauses[:3] == sorted(pauses[:3])
    assert pauses[0] > 1


def test_a_service_that_answers_nobody_costs_no_film(hospital: Hospital) -> None:
    url = hospital.stack.enter_context(serving(make_stalling_service(b"1.2.3.")))
    node = hospital.open(service={"url": url, "timeout_seconds": 0.5})
    node.parts.database.write(
        "test",
        methodcaller(
            "execute",
            "CREATE TRIGGER test AFTER INSERT ON instances BEGIN "
            f"UPDATE instances SET timeouts = {MAX_TIMEOUTS - 1}; END",
        ),
    )
    hospital.send(film(49), film(50))
    tries = "SELECT COUNT(*) AS n FROM instances WHERE tries >= 2 AND state = 'received'"
    wait_until(lambda: hospital.rows(tries) == [{"n": 2}], seconds=60)


def test_a_film_that_is_tried_again_has_one_line_in_the_audit_log(hospital: Hospital) -> None:
    hospital.open(service={"url": f"http://127.0.0.1:{free_port()}"})
    hospital.send(film(53))
    wait_until(lambda: hospital.rows("SELECT tries FROM instances")[0]["tries"] >= 2)
    (line,) = (hospital.folder / "audit.log").read_text().splitlines()
    assert "DICOM Instances Transferred" in line


def test_a_film_that_was_given_up_and_is_sent_again_was_not_received_again(
    reception: Reception,
) -> None:
    reception.receiver.admit(incoming(film(54)))
    assert next_waiting(reception).is_new
    number = next_waiting(reception).id
    for change in (
        partial(instances.bury, instance=number, reason="internal"),
        partial(dead_letters.revive, number=f"i{number}"),
    ):
        reception.database.write("test", change)
    assert next_waiting(reception).tries == 0
    assert not next_waiting(reception).is_new


def incoming(dataset: Dataset) -> Incoming:
    """A film as a sender's request holds it."""
    return Incoming(
        class_uid=dataset.SOPClassUID,
        sop_uid=dataset.SOPInstanceUID,
        syntax=dataset.file_meta.TransferSyntaxUID,
        data_set=encode(dataset, is_implicit_vr=False, is_little_endian=True) or b"",
        source_ae="SENDER",
    )


def next_waiting(reception: Reception) -> Waiting:
    """The film that is to be scored next."""
    with reception.database.reading() as connection:
        waiting = instances.next_due(connection, now=time.time(), taken=())
    assert waiting is not None
    return waiting


def run_command(hospital: Hospital, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the gateway on settings with the destination "second" alone."""
    config = hospital.folder.with_suffix(".toml")
    config.write_text(
        f'[node]\nfolder = "{hospital.folder}"\naccept_any_peer = true\n'
        '[[destinations]]\nname = "second"\nstow_url = "http://127.0.0.1:1"\n'
        '[[rules]]\nname = "all"\ndestinations = ["second"]\n'
    )
    command = [sys.executable, "-m", "gateway", "--config", str(config), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_results_for_a_destination_that_was_renamed_are_listed_and_can_go_elsewhere(
    hospital: Hospital,
) -> None:
    gone = hospital.settings({"stow_url": f"http://127.0.0.1:{free_port()}"})
    with running_node(gone) as hospital.node:
        hospital.send(film(51))
        wait_until(lambda: hospital.states() == ["scored"])
    said = "destination archive is no longer configured"
    assert f"{said}: 1 results wait for it" in run_command(hospital, "check").stdout

    url = hospital.stack.enter_context(stow_archive(hospital.shelf))
    place = {"name": "second", "stow_url": url}
    renamed = hospital.settings(place, rules=[RULE | {"destinations": ["second"]}])
    node = hospital.run(renamed)
    assert hospital.rows("SELECT state, reason FROM deliveries") == [
        {"state": "dead", "reason": "destination_removed"}
    ]
    assert said in render_page(node)
    assert said in run_command(hospital, "dead").stdout
    refused = run_command(hospital, "resend", "d1")
    assert (refused.returncode, said in refused.stderr) == (1, True)
    assert run_command(hospital, "resend", "all", "--to", "second").returncode == 0
    wait_until(lambda: hospital.states() == ["confirmed"])
    assert len(hospital.shelf.held) == 1


def test_a_result_is_not_sent_elsewhere_if_its_copy_is_there_already(hospital: Hospital) -> None:
    hospital.shelf.manner = "reject"
    url = hospital.stack.enter_context(stow_archive(hospital.shelf))
    destinations = [{"name": "archive", "stow_url": url}, {"name": "second", "stow_url": url}]
    rule = RULE | {"destinations": ["archive", "second"]}
    node = hospital.run(hospital.settings({}, destinations=destinations, rules=[rule]))
    hospital.send(film(55))
    wait_until(lambda: hospital.states() == ["dead"] * 2)
    ids = {row["destination"]: row["id"] for row in hospital.rows("SELECT * FROM deliveries")}

    refused = run_command(hospital, "resend", f"d{ids['archive']}", "--to", "second")

    said = f"d{ids['archive']}: destination second has its own copy of this result; it was not sent"
    assert (refused.returncode, said in refused.stderr) == (1, True)
    assert hospital.states() == ["dead"] * 2
    with node.parts.database.reading() as connection:
        letters = dead_letters.list_dead(connection)
    assert {letter.target for letter in letters} == {"archive", "second"}


def test_an_image_that_was_given_up_can_not_be_sent_to_a_destination(hospital: Hospital) -> None:
    refused = run_command(hospital, "resend", "i1", "--to", "second")
    assert refused.returncode == 2
    assert "--to is for results" in refused.stderr


def test_results_go_on_if_their_destination_is_named_again(hospital: Hospital) -> None:
    gone = hospital.settings({"stow_url": f"http://127.0.0.1:{free_port()}"})
    with running_node(gone) as hospital.node:
        hospital.send(film(52))
        wait_until(lambda: hospital.states() == ["scored"])
    without = hospital.settings({}, destinations=[], rules=[{"name": "all", "silent": True}])
    with running_node(without) as hospital.node:
        assert hospital.states() == ["dead"]
    hospital.open()
    wait_until(lambda: hospital.states() == ["confirmed"])
