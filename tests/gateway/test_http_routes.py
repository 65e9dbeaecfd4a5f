"""HTTP of the gateway: STOW-RS, the page, verdicts, the report, and the key before them."""

import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from operator import methodcaller
from pathlib import Path
from socketserver import BaseServer
from typing import Any

import httpx
import pytest
from pydicom.dataset import Dataset

from gateway.header import find_data_set, read_facts, read_meta
from gateway.http_routes import create_app
from gateway.instances import Waiting, next_due
from gateway.node import Node, running_node
from gateway.period_report import Share
from gateway.receive import Incoming
from gateway.results_table import Answered, add_answer, add_event
from gateway.structured_report import ServiceAnswer
from tests.gateway.conftest import CT, film
from tests.gateway.peers import serving
from tests.gateway.settings import make_settings
from tests.pacs.node import Gateway
from tests.phi_marked_files import find_marks, marked_dicom
from tests.server import ROOT, free_port
from tests.waiting import wait_until

TYPE = 'multipart/related; type="application/dicom"; boundary=part'


def dicom(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def multipart(*parts: bytes) -> bytes:
    head = b"--part\r\nContent-Type: application/dicom\r\n\r\n"
    return b"".join(head + part + b"\r\n" for part in parts) + b"--part--\r\n"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A gateway whose service is away, so that what it receives stays where it is."""
    url = f"http://127.0.0.1:{free_port()}"
    with running_node(make_settings(tmp_path / "node", service={"url": url})) as node:
        yield node


@pytest.fixture
def web(node: Node) -> Iterator[httpx.Client]:
    """A client of the gateway's HTTP."""
    with serving(create_app(node)) as url, httpx.Client(base_url=url) as client:
        yield client


def store(
    web: httpx.Client, *parts: bytes, path: str = "/dicomweb/studies", kind: str = TYPE
) -> Any:
    return web.post(path, content=multipart(*parts), headers={"content-type": kind})


def test_instances_come_by_stow_too(node: Node, web: httpx.Client) -> None:
    response = store(web, dicom(film(1)), dicom(film(2)), dicom(film(1)))
    assert response.status_code == 200
    assert len(response.json()["00081199"]["Value"]) == 3
    with node.parts.database.reading() as connection:
        kept = connection.execute("SELECT sop_uid, source_ae FROM instances ORDER BY id").fetchall()
    assert [tuple(row) for row in kept] == [("1.2.3.1.1.1", "STOW-RS"), ("1.2.3.2.1.1", "STOW-RS")]


@pytest.mark.parametrize("preamble", [b"\r\n", b"This is a message in parts.\r\n"])
def test_text_before_the_first_boundary_is_ignored(
    node: Node, web: httpx.Client, preamble: bytes
) -> None:
    body = preamble + multipart(dicom(film(14)))
    response = web.post("/dicomweb/studies", content=body, headers={"content-type": TYPE})
    assert response.status_code == 200
    assert len(response.json()["00081199"]["Value"]) == 1
    assert sop_uid(node) == "1.2.3.14.1.1"


def test_a_part_that_cannot_be_taken_is_named_with_its_reason(web: httpx.Client) -> None:
    foreign = dicom(film(3, SOPClassUID=CT, Modality="CT"))
    response = store(web, dicom(film(4)), b"no DICOM file", foreign)
    failed = response.json()["00081198"]["Value"]
    assert response.status_code == 202
    assert [one["00081197"]["Value"] for one in failed] == [[0xC000], [0x0122]]
    assert store(web, b"no DICOM file").status_code == 409


def test_an_instance_of_another_study_than_the_address_names_is_refused(web: httpx.Client) -> None:
    path = "/dicomweb/studies/1.2.3.5"
    assert store(web, dicom(film(5)), path=path).status_code == 200
    refused = store(web, dicom(film(6)), path=path)
    (failed,) = refused.json()["00081198"]["Value"]
    assert (refused.status_code, failed["00081197"]["Value"]) == (409, [0xC002])


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ('multipart/related; type="application/dicom"', multipart(b"x"), 400),
        (TYPE, b"no multipart body", 400),
        (TYPE, b"", 400),
    ],
)
def test_a_body_that_is_none_is_refused(
    web: httpx.Client, kind: str, body: bytes, status: int
) -> None:
    response = web.post("/dicomweb/studies", content=body, headers={"content-type": kind})
    assert response.status_code == status


def test_a_body_that_was_cut_short_is_not_called_a_success(web: httpx.Client) -> None:
    whole = multipart(dicom(film(9)), dicom(film(10)))
    cut = httpx.post(
        f"{web.base_url}/dicomweb/studies", content=whole[:-2000], headers={"content-type": TYPE}
    )
    assert cut.status_code == 400
    assert store(web, dicom(film(9)), dicom(film(10))).status_code == 200


def test_a_full_disk_asks_stow_to_come_again(tmp_path: Path) -> None:
    settings = make_settings(tmp_path / "node", node={"min_free_gb": 10**6})
    with (
        running_node(settings) as node,
        serving(create_app(node)) as url,
        httpx.Client(base_url=url) as web,
    ):
        response = store(web, dicom(film(7)))
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0


def test_the_page_lists_what_is_stuck_and_names_no_patient(
    node: Node, web: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        assert store(web, marked_dicom()).status_code == 200
        node.parts.database.write(
            "test", lambda connection: connection.execute("UPDATE instances SET received_at = 1")
        )
        page = web.get("/gateway").text
        metrics = web.get("/metrics").text
    assert "1 stuck" in page
    assert node.parts.key.hash(sop_uid(node)) in page
    said = "".join(json.dumps(vars(record), default=str) for record in caplog.records)
    assert find_marks(page + metrics + said) == set()
    assert sop_uid(node) not in page + metrics


def test_the_page_says_in_words_why_something_waits_and_when_it_looked(
    node: Node, web: httpx.Client
) -> None:
    assert store(web, dicom(film(8))).status_code == 200
    node.parts.database.write(
        "test",
        lambda connection: connection.execute(
            "UPDATE instances SET received_at = 1, reason = 'unreachable'"
        ),
    )
    page = web.get("/gateway").text
    assert "does not answer (unreachable)" in page
    assert f"As of {datetime.now(UTC):%Y-%m-%d}" in page


def sop_uid(node: Node) -> str:
    with node.parts.database.reading() as connection:
        return str(connection.execute("SELECT sop_uid FROM instances").fetchone()[0])


def test_a_key_is_asked_for_where_there_is_one(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("secret\n")
    with (
        running_node(make_settings(tmp_path / "node", http={"key_file": key_file})) as node,
        serving(create_app(node)) as url,
        httpx.Client(base_url=url) as web,
    ):
        assert [web.get(path).status_code for path in ("/gateway", "/metrics")] == [401, 200]
        assert store(web, dicom(film(8))).status_code == 401
        good = {"authorization": "Bearer secret"}
        assert web.get("/gateway", headers=good).status_code == 200


def answer_in(node: Node, number: int, *, positive: bool, seconds: float, view: str = "PA") -> None:
    """Add an answer about a film, and when its report was confirmed."""
    facts = read_facts(dicom(film(number, ViewPosition=view, AccessionNumber=f"A{number}")))
    received_at = time.time() - seconds
    waiting = Waiting(0, facts.sop_uid, "0" * 64, "ROOM1", "", received_at, 0, 0, None, is_new=True)
    answer = ServiceAnswer(
        "pneumothorax", 0.7, 0.5, positive, "pneumothorax", "3", "f" * 64, "b", ("w",)
    )
    answered = Answered(waiting, facts, answer, "adults", is_silent=False, trace_id="0" * 32)

    def add(connection: Any) -> None:
        row = add_answer(connection, answered, node.parts.key)
        add_event(connection, row, "archive", "sr", "confirmed")

    node.parts.database.write("test", add)


def test_readers_verdicts_are_kept_by_uid_or_hash_and_counted(
    node: Node, web: httpx.Client, tmp_path: Path
) -> None:
    for number, view in ((1, "PA"), (2, "AP"), (3, "AP")):
        answer_in(node, number, positive=number == 1, seconds=2, view=view)
    hashed = node.parts.key.hash("A3")
    verdicts = [
        {"verdict": "reject", "sop_instance_uid": "1.2.3.1.1.1"},
        {"verdict": "accept", "sop_instance_uid": "1.2.3.1.1.1"},  # a later one replaces it
        {"verdict": "accept", "study_instance_uid": "1.2.3.2"},
        {"verdict": "other", "label": "effusion", "accession_hash": hashed},
    ]
    statuses = [web.post("/gateway/verdict", json=verdict).status_code for verdict in verdicts]
    assert statuses == [201] * 4

    config = tmp_path / "gateway.toml"
    folder = node.parts.settings.node.folder
    config.write_text(
        f'[node]\nfolder = "{folder}"\n[[peers]]\nae_title = "A"\n'
        '[[rules]]\nname = "r"\nsilent = true\n'
    )
    html = tmp_path / "report.html"
    command = [sys.executable, "-m", "gateway", "--config", str(config), "report"]
    done = subprocess.run(
        [*command, "--html", str(html)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "answers: 3, of these silent: 0" in done.stdout
    assert "positive: 33.3 % (6.1 to 79.2), 1 of 3" in done.stdout
    assert "verdicts that accept the answer: 66.7 % (20.8 to 93.9), 2 of 3" in done.stdout
    assert "AP: 2 answers" in done.stdout
    assert "p50 2.0 s" in done.stdout
    assert "<svg" in html.read_text()
    assert "1.2.3" not in html.read_text()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"verdict": "accept", "sop_instance_uid": "1.9"}, 404),
        ({"verdict": "accept"}, 400),
        ({"verdict": "maybe", "sop_instance_uid": "1.9"}, 400),
        ({"verdict": "other", "sop_instance_uid": "1.9"}, 400),
        ({"verdict": "accept", "accession_hash": "A1"}, 400),
    ],
)
def test_a_verdict_about_nothing_is_refused(
    web: httpx.Client, body: dict[str, str], status: int
) -> None:
    assert web.post("/gateway/verdict", json=body).status_code == status


def test_a_verdict_without_end_is_not_read_to_its_end(web: httpx.Client) -> None:
    place = (web.base_url.host, web.base_url.port or 0)
    head = b"POST /gateway/verdict HTTP/1.1\r\nHost: gateway\r\nContent-Length: 9000000000\r\n\r\n"
    with socket.create_connection(place, timeout=30) as sender:
        sender.sendall(head + bytes(20_000))
        assert sender.recv(100).startswith(b"HTTP/1.1 413")


def test_an_upload_that_breaks_off_leaves_no_trace_of_a_fault(
    web: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    place = (web.base_url.host, web.base_url.port or 0)
    head = f"POST /dicomweb/studies HTTP/1.1\r\nHost: gateway\r\nContent-Type: {TYPE}\r\n"
    with socket.create_connection(place, timeout=30) as sender:
        sender.sendall(f"{head}Content-Length: 9000\r\nExpect: 100-continue\r\n\r\n".encode())
        assert sender.recv(100).startswith(b"HTTP/1.1 100")  # its body is being waited for
    assert store(web, dicom(film(13))).status_code == 200
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_an_upload_that_stalls_does_not_keep_the_gateway_from_ending(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    gateway = Gateway(tmp_path / "run", url, [], [{"name": "all", "silent": True}])
    gateway.start()
    try:
        head = f"POST /dicomweb/studies HTTP/1.1\r\nHost: gateway\r\nContent-Type: {TYPE}\r\n"
        with socket.create_connection(("127.0.0.1", gateway.http_port), timeout=30) as sender:
            sender.sendall(f"{head}Content-Length: 9000\r\nExpect: 100-continue\r\n\r\n".encode())
            assert sender.recv(100).startswith(b"HTTP/1.1 100")
            gateway.stop()
        assert "Traceback" not in gateway.log.read_text()
    finally:
        gateway.kill()


@pytest.mark.parametrize("number", ["d1", "d", "x1", "d\u00b2", f"d{10**30}"])
def test_a_dead_letter_that_is_none_is_not_found(web: httpx.Client, number: str) -> None:
    assert web.post(f"/gateway/dead/{number}/resend").status_code == 404


def test_intervals_are_wilsons() -> None:
    assert Share(8, 10).interval == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert str(Share(0, 0)) == "-"


def test_health_says_when_a_part_has_died(node: Node, web: httpx.Client) -> None:
    assert web.get("/livez").status_code == 200
    node.housekeeper.stop()
    response = web.get("/readyz")
    assert (response.status_code, response.json()) == (503, {"faults": ["housekeeper"]})


def test_health_says_when_no_modality_can_connect_any_more(node: Node, web: httpx.Client) -> None:
    assert web.get("/livez").status_code == 200
    listener = node.server._server
    assert listener is not None
    BaseServer.shutdown(listener)  # its thread ends; its socket stays open
    response = web.get("/livez")
    assert (response.status_code, response.json()) == (503, {"faults": ["listener"]})


def test_a_clock_that_was_set_back_keeps_nothing_waiting(tmp_path: Path) -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    settings = make_settings(
        tmp_path / "node",
        service={"url": gone},
        destinations=[{"name": "archive", "stow_url": gone}],
    )
    with running_node(settings) as node:
        answer_in(node, 1, positive=True, seconds=1)
        data = dicom(film(1))
        class_uid, uid, syntax = read_meta(data)
        data_set = data[find_data_set(data) :]
        node.receiver.admit(Incoming(class_uid, uid, syntax, data_set, "SENDER"))
        node.parts.database.write("test", lambda connection: connection.execute(DELIVERY))
        far = time.time() + 6 * 3600
        for table in ("instances", "deliveries"):
            change = f"UPDATE {table} SET next_at = {far}"
            node.parts.database.write("test", methodcaller("execute", change))
            wait_until(lambda: latest(node, table) < far - 3600)  # noqa: B023


DELIVERY = (
    "INSERT INTO deliveries (instance, answer, destination, kind, class_uid, sop_uid, series_uid, "
    "study_uid, rule, rank, content, state, created_at) VALUES (1, 1, 'archive', 'sr', '1', '2', "
    "'3', '4', 'all', 0, x'00', 'scored', 4e9)"
)


def latest(node: Node, table: str) -> float:
    with node.parts.database.reading() as connection:
        return float(connection.execute(f"SELECT MAX(next_at) FROM {table}").fetchone()[0])


def test_what_is_postponed_lets_others_go_first(node: Node, web: httpx.Client) -> None:
    store(web, dicom(film(11)), dicom(film(12)))
    with node.parts.database.reading() as connection:
        first = next_due(connection, now=time.time() + 3600, taken=())
        assert first is not None
        second = next_due(connection, now=time.time() + 3600, taken={first.id})
    assert second is not None
    assert first.id != second.id
