"""A real DICOMweb server: Orthanc, with its DICOMweb plugin, holding made radiographs."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pydicom
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bulk.archive_parts import Item
from bulk.errors import BulkError, SourceUnreadable
from bulk.rows import Row
from bulk.sources import open_source
from tests.factories import chest, make_dicom
from tests.gateway.peers import serving

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
NUM_CHESTS = 3


@dataclass(frozen=True, slots=True)
class Archive:
    """A running server, and what was sent to it."""

    url: str
    sent: dict[str, bytes]
    """By SOP Instance UID; radiographs alone."""


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """Orthanc with three chest radiographs and one CT slice."""
    program = shutil.which("Orthanc")
    if program is None or not PLUGIN.exists():
        pytest.skip("no Orthanc on this machine")
    folder = tmp_path_factory.mktemp("orthanc")
    port = free_port()
    settings = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(PLUGIN)],
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [program, str(folder / "orthanc.json")], stdout=log, stderr=log
        ) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_up(url, process)
            yield Archive(f"{url}/dicom-web", fill(url))
        finally:
            process.terminate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_up(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/system").is_success:
                return
        time.sleep(0.05)
    raise AssertionError("Orthanc did not start")


def fill(url: str) -> dict[str, bytes]:
    sent = {}
    for number in range(NUM_CHESTS + 1):
        modality = "CT" if number == NUM_CHESTS else "CR"
        root = f"2.25.{number + 1}"
        data = make_dicom(
            chest(64, 64, seed=number),
            Modality=modality,
            StudyInstanceUID=root,
            SeriesInstanceUID=f"{root}.1",
            SOPInstanceUID=f"{root}.1.1",
        )
        httpx.post(f"{url}/instances", content=data).raise_for_status()
        if modality == "CR":
            sent[f"{root}.1.1"] = data
    return sent


def read(archive: Archive, item: Item, max_bytes: int = 2**20) -> bytes:
    with closing(open_source(archive.url).reader()) as reader:
        return reader.read(item, max_bytes)


def test_the_radiographs_of_a_server_are_found_and_other_modalities_are_not(
    orthanc: Archive,
) -> None:
    found = {item.path for item in open_source(orthanc.url).listing().items}

    assert found == {
        f"{uid.removesuffix('.1.1')}/{uid.removesuffix('.1')}/{uid}" for uid in orthanc.sent
    }


def test_an_instance_is_fetched_with_its_pixels_as_they_are_stored(
    orthanc: Archive, tmp_path: Path
) -> None:
    for item in open_source(orthanc.url).listing().items:
        (tmp_path / "fetched").write_bytes(read(orthanc, item))
        (tmp_path / "sent").write_bytes(orthanc.sent[item.path.split("/")[2]])

        fetched, sent = pydicom.dcmread(tmp_path / "fetched"), pydicom.dcmread(tmp_path / "sent")

        assert fetched.PixelData == sent.PixelData
        assert fetched.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID


def test_a_row_names_the_three_uids(orthanc: Archive) -> None:
    row = open_source(orthanc.url).name(Row("1.2/3.4/5.6", ""))

    assert (row.study_uid, row.series_uid, row.instance_uid) == ("1.2", "3.4", "5.6")


def test_an_instance_that_the_server_does_not_have_can_not_be_read(orthanc: Archive) -> None:
    with pytest.raises(SourceUnreadable):
        read(orthanc, Item("1/2/3", ""))


def test_a_longer_instance_than_may_be_is_cut_off(orthanc: Archive) -> None:
    item = min(open_source(orthanc.url).listing().items)

    assert len(read(orthanc, item, max_bytes=100)) > 100


def test_a_server_that_is_no_dicomweb_server_is_said_in_a_sentence(orthanc: Archive) -> None:
    with pytest.raises(BulkError, match="can't be searched"):
        list(open_source(orthanc.url.replace("dicom-web", "nothing")).listing().items)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([{"0020000D": {"vr": "UI", "Value": []}}], "no value of (0020,000D)"),
        ([{"0020000D": {"vr": "UI"}}], "no value of (0020,000D)"),
        ([None], "no value of (0020,000D)"),
        ({"error": "no archive"}, "no list of matches"),
        ({}, "no list of matches"),
        (7, "no list of matches"),
    ],
)
def test_an_answer_that_is_no_list_of_studies_is_said_in_a_sentence(
    answer: object, said: str
) -> None:
    async def search(_request: Request) -> Response:
        return JSONResponse(answer)

    with (
        serving(Starlette(routes=[Route("/studies", search)])) as url,
        pytest.raises(BulkError) as caught,
    ):
        open_source(url).listing()

    assert "can't be searched" in str(caught.value)
    assert said in str(caught.value)
