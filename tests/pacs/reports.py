"""What the archive holds in the end, held against what must be there."""

import shutil
import sqlite3
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from tests.pacs.archive import Archive
from tests.pacs.films import Film
from tests.pacs.node import Gateway
from tests.waiting import wait_until

TOLERANCE = 1e-5
"""Another batch may change the last digits of a probability."""


def wait_for_reports(
    archive: Archive, count: int, *, seconds: float, gateway: Gateway | None = None
) -> None:
    """Wait until the archive holds so many reports, however busy the machine is."""
    try:
        wait_until(lambda: archive.count_reports() >= count, seconds=seconds)
    except AssertionError:
        page = httpx.get(f"{gateway.url}/gateway", timeout=30).text if gateway else ""
        pytest.fail(f"{archive.count_reports()} of {count} reports after {seconds} s\n{page}")


def check_once(archive: Archive, films: list[Film]) -> dict[str, Dataset]:
    """Check that each film has exactly one report, in its own study, stored once.

    Returns:
        The reports by the SOP Instance UID of their film.
    """
    by_film: dict[str, Dataset] = {}
    for content in archive.reports().values():
        report = dcmread(BytesIO(content))
        series = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
        film_uid = str(series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        assert film_uid not in by_film, "a film has two reports"
        by_film[film_uid] = report
    sent = {film.sop_uid: film.study_uid for film in films}
    assert by_film.keys() == sent.keys()
    assert {uid: str(report.StudyInstanceUID) for uid, report in by_film.items()} == sent
    assert archive.stored_lines() == (len(films), 0), "the archive was sent a report twice"
    return by_film


def check_valid(archive: Archive, folder: Path) -> None:
    """Check every report with dciodvfy: no error."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("no dciodvfy on this machine")
    for number, content in enumerate(archive.reports().values()):
        path = folder / f"report{number}.dcm"
        path.write_bytes(content)
        done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        faults = [line for line in done.stderr.splitlines() if line.startswith("Error")]
        assert faults == []


def probability_in(report: Dataset) -> float:
    """Read the certainty out of a report, from 0 to 1."""
    group = report.ContentSequence[-1].ContentSequence[0]
    numbers = [item for item in group.ContentSequence if item.ValueType == "NUM"]
    certainty = next(
        item for item in numbers if item.ConceptNameCodeSequence[0].CodeValue == "111012"
    )
    return float(certainty.MeasuredValueSequence[0].FloatingPointValue) / 100


def rows(gateway: Gateway, query: str) -> list[Any]:
    """Rows of a gateway's table, which may be running."""
    with sqlite3.connect(gateway.folder / "data/gateway.sqlite", timeout=30) as connection:
        return connection.execute(query).fetchall()
