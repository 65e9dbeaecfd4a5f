"""Each example does what it says, against a real service and a real archive."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom.uid import generate_uid

from tests.factories import chest, make_dicom, make_png
from tests.pacs.archive import Archive
from tests.server import ROOT, Server, running_server

EXAMPLES = ROOT / "examples"

pytestmark = pytest.mark.timeout(400)  # the service measures both models when it starts


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service with the bundles that the repository ships."""
    log = tmp_path_factory.mktemp("service") / "log"
    with running_server(ROOT / "model_store", log) as running:
        yield running


def test_the_program_on_the_page_of_the_library_prints_a_finding(tmp_path: Path) -> None:
    (program,) = re.findall(
        r"```python\n(.+?)```", (ROOT / "docs/api-cxr.md").read_text(), re.DOTALL
    )
    (tmp_path / "model_store").symlink_to(ROOT / "model_store")
    (tmp_path / "sample.dcm").write_bytes(make_dicom(chest()))
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=350,
    )
    assert "pneumothorax" in done.stdout


def test_every_request_of_the_shell_script_is_answered(server: Server) -> None:
    done = subprocess.run(
        [str(EXAMPLES / "curl.sh"), server.url],
        capture_output=True,
        text=True,
        check=True,
        timeout=350,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [answer.get("finding") for answer in answers[1:3]] == ["pneumothorax", "pneumothorax"]
    assert len(answers[3]["results"]) == 2
    assert answers[4]["code"] == "unsupported_format"


def test_the_client_lists_a_folder_by_probability_and_names_the_file_with_a_problem(
    server: Server, tmp_path: Path
) -> None:
    for seed in range(3):
        (tmp_path / f"{seed}.png").write_bytes(make_png(chest(seed=seed)))
    (tmp_path / "broken.png").write_bytes(b"no image")
    script = str(EXAMPLES / "predict_folder.py")
    command = [sys.executable, script, str(tmp_path), "--url", server.url]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=350,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    probabilities = [float(line.split()[0]) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert "broken.png: unsupported_format" in done.stderr
    assert len(probabilities) == 3
    assert probabilities == sorted(probabilities, reverse=True)


def test_an_archive_with_the_hook_keeps_a_report_beside_each_radiograph(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXR_URL", server.url)
    archive = Archive(tmp_path / "archive", {"LuaScripts": [str(EXAMPLES / "orthanc_hook.lua")]})
    archive.start()
    try:
        radiograph = make_dicom(
            chest(),
            Modality="DX",
            ViewPosition="PA",
            StudyInstanceUID=generate_uid(),
            SeriesInstanceUID=generate_uid(),
        )
        httpx.post(f"{archive.url}/instances", content=radiograph, timeout=60).raise_for_status()
        stored = series_of(archive, at_least=2)
    finally:
        archive.stop()
    studies = {series["ParentStudy"] for series in stored}
    assert sorted(series["MainDicomTags"]["Modality"] for series in stored) == ["DX", "SR"]
    assert len(studies) == 1


def series_of(archive: Archive, *, at_least: int) -> list[dict[str, Any]]:
    """Return all series of an archive, as soon as there are so many: the hook runs by itself."""
    end = time.monotonic() + 60
    while True:
        stored: list[dict[str, Any]] = httpx.get(f"{archive.url}/series?expand", timeout=60).json()
        if len(stored) >= at_least or time.monotonic() > end:
            return stored
        time.sleep(0.1)
