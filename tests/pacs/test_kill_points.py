"""Killed at every place at which something becomes true: nothing is lost, nothing comes twice."""

import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import dcmread

from gateway.failpoints import POINTS
from tests.pacs.archive import Archive
from tests.pacs.conftest import MakeGateway
from tests.pacs.films import Film, send
from tests.pacs.node import Gateway
from tests.pacs.reports import check_once, rows, wait_for_reports
from tests.server import free_port
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(6000)


def test_a_death_at_every_point_loses_nothing_and_doubles_nothing(
    films: list[Film], archive: Archive, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    """Walk all points: each kills the gateway while a share of the films is on its way."""
    gateway = make_gateway()
    url = gateway.service_url
    bounds = [round(index * len(films) / len(POINTS)) for index in range(len(POINTS) + 1)]
    for point, (first, last) in zip(POINTS, pairwise(bounds), strict=True):
        share = films[first:last]
        if point.endswith(".postponed"):  # something must be in vain
            gateway.service_url = f"http://127.0.0.1:{free_port()}"
        gateway.start(failpoint=point)
        sender = threading.Thread(target=send_until_taken, args=(share, gateway))
        sender.start()
        if point.endswith((".skipped", ".conflict")):
            sender.join()
            send_odd(share[0], gateway, tmp_path)
        try:
            wait_until(lambda: gateway.was_killed, seconds=900)
        except AssertionError:
            pytest.fail(f"{point} was not reached\n{httpx.get(gateway.url + '/gateway').text}")
        gateway.service_url = url
        gateway.start()
        sender.join()
        wait_for_reports(archive, last, seconds=900, gateway=gateway)
        gateway.kill()

    check_once(archive, films)
    gateway.start()
    wait_until(lambda: gateway.metric("cxr_gateway_spool_bytes") == 0)
    gateway.stop()
    assert archive.stored_lines() == (len(films), 0)
    counted = "SELECT COUNT(*), COUNT(DISTINCT instance_hash) FROM answers"
    assert rows(gateway, counted) == [(len(films), len(films))]
    # The archive's log does show a report that comes again.
    report = next(iter(archive.reports().values()))
    httpx.post(f"{archive.url}/instances", content=report).raise_for_status()
    assert archive.stored_lines() == (len(films), 1)


def send_until_taken(films: list[Film], gateway: Gateway) -> None:
    """Send again and again, as a sender does whose receiver is away."""
    wait_until(lambda: send(films, gateway.dicom_port), seconds=900)


def send_odd(film: Film, gateway: Gateway, folder: Path) -> None:
    """Send a film that is skipped, and another one under a UID that is known already."""
    folder.mkdir(exist_ok=True)
    for name, changes in (
        ("lateral", {"ViewPosition": "LATERAL", "SOPInstanceUID": f"{film.sop_uid[:55]}.7"}),
        ("other", {"InstanceNumber": 77}),
    ):
        send([_changed(film, folder / f"{name}.dcm", changes)], gateway.dicom_port)


def _changed(film: Film, path: Path, changes: dict[str, Any]) -> Film:
    dataset = dcmread(film.path)
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    return Film(path, film.option, film.study_uid, str(dataset.SOPInstanceUID))
