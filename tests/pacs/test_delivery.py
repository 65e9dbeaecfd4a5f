"""Every film gets one report, whatever is sent how often, and whatever goes away in between."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from cxr_client import Client
from tests.gateway.conftest import in_threads
from tests.pacs.archive import Archive
from tests.pacs.conftest import MakeGateway
from tests.pacs.films import Film, send
from tests.pacs.node import Gateway
from tests.pacs.reports import (
    TOLERANCE,
    check_once,
    check_valid,
    probability_in,
    rows,
    wait_for_reports,
)
from tests.pacs.service import RunningService
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(6000)

SENDERS = ("SENDER1", "SENDER2", "SENDER3", "SENDER4")
TIMES = 3
BOTH = {"results": ["sr", "sc"]}


def send_from_all(films: list[Film], gateway: Gateway) -> None:
    """Send each film three times, from four senders at once.

    A sender repeats what was not taken.
    """

    def run(caller: str, share: list[Film]) -> None:
        for _ in range(TIMES):
            wait_until(lambda: send(share, gateway.dicom_port, caller), seconds=900)

    shares = [films[number :: len(SENDERS)] for number in range(len(SENDERS))]
    in_threads(*map(partial, [run] * len(SENDERS), SENDERS, shares))


@contextmanager
def sending(films: list[Film], gateway: Gateway) -> Iterator[None]:
    """Send from all senders while the block runs, and wait for them at its end."""
    faults: list[BaseException] = []

    def run() -> None:
        try:
            send_from_all(films, gateway)
        except BaseException as exc:
            faults.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()
    if faults:
        raise faults[0]


def test_films_sent_three_times_by_four_senders_have_one_report_each(
    films: list[Film],
    archive: Archive,
    make_gateway: MakeGateway,
    service: RunningService,
    tmp_path: Path,
) -> None:
    gateway = make_gateway()
    gateway.start()
    send_from_all(films, gateway)
    wait_for_reports(archive, len(films), seconds=900, gateway=gateway)

    reports = check_once(archive, films)
    check_valid(archive, tmp_path)
    with Client(service.url) as client:
        for film in films:
            own = client.predict(film.path)["probability"]
            assert probability_in(reports[film.sop_uid]) == pytest.approx(own, abs=TOLERANCE)
    wait_until(lambda: gateway.metric("cxr_gateway_spool_bytes") == 0)
    assert gateway.metric("cxr_gateway_received_total", kind="new") == len(films)
    assert gateway.metric("cxr_gateway_received_total", kind="duplicate") == 2 * len(films)
    gateway.stop()
    assert rows(gateway, "SELECT COUNT(DISTINCT instance_hash), COUNT(*) FROM answers") == [
        (len(films), len(films))
    ]


def test_reports_and_pictures_go_by_c_store_and_are_confirmed_by_c_find(
    films: list[Film], archive: Archive, make_gateway: MakeGateway
) -> None:
    rule = {"name": "all", "destinations": ["archive"], **BOTH}
    gateway = make_gateway(by_dimse=True, rules=[rule])
    gateway.start()
    assert send(films[:20], gateway.dicom_port)
    wait_until(lambda: gateway.metric("cxr_gateway_confirmed_total") == 40, seconds=900)
    gateway.stop()
    assert archive.count_reports() == len(archive.find(SeriesNumber="9002")) == 20
    assert archive.stored_lines() == (40, 0)


def test_a_service_that_dies_twice_and_an_archive_away_for_a_minute_lose_nothing(
    films: list[Film], archive: Archive, make_gateway: MakeGateway, service: RunningService
) -> None:
    gateway = make_gateway()
    gateway.start()
    with sending(films, gateway):
        wait_until(lambda: archive.count_reports() >= 10, seconds=900)
        service.kill()
        service.start()
        wait_until(lambda: archive.count_reports() >= 30, seconds=900)
        archive.stop(signal.SIGKILL)
        threading.Event().wait(60)  # the minute that the archive is away
        service.kill()
        archive.start()
        service.start()
    wait_for_reports(archive, len(films), seconds=900, gateway=gateway)
    gateway.stop()
    check_once(archive, films)


AUTO_FORWARD = """
function OnStoredInstance(id, tags, metadata, origin)
  RestApiPost('/modalities/gateway/store', DumpJson(
    {Resources = {id}, Asynchronous = true, Permissive = true}, true))
end
"""


def test_an_archive_that_forwards_all_that_it_stores_brings_about_no_loop(
    films: list[Film], archive: Archive, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    gateway = make_gateway(rules=[{"name": "all", "destinations": ["archive"], **BOTH}])
    gateway.peers.append("ARCHIVE")
    archive.stop()
    script = tmp_path / "forward.lua"
    script.write_text(AUTO_FORWARD)
    place = {"AET": "CXRGATE", "Host": "127.0.0.1", "Port": gateway.dicom_port}
    archive.more = {
        "LuaScripts": [str(script)],
        "DicomModalities": {"gateway": place},
        "DicomScuTimeout": 120,  # it would not repeat what a busy machine let fail
    }
    archive.start()
    gateway.start()
    sent = films[:10]
    for film in sent:
        httpx.post(f"{archive.url}/instances", content=film.path.read_bytes()).raise_for_status()
    # A film comes from the archive; its picture comes back and is skipped, its report is refused.
    skipped, refused = "cxr_gateway_skipped_total", "cxr_gateway_refused_total"
    wait_until(lambda: gateway.metric(skipped, reason="own_result") == len(sent), seconds=900)
    wait_until(lambda: gateway.metric(refused, reason="sop_class") >= len(sent), seconds=900)
    assert gateway.metric("cxr_gateway_scored_total") == len(sent)
    gateway.stop()
    assert archive.count_reports() == len(archive.find(SeriesNumber="9002")) == len(sent)
    assert archive.stored_lines() == (3 * len(sent), 0)
