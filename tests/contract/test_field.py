"""Each small input of the field collection is answered as its manifest expects.

A twin shows the same image stored plainly: its probability is the measure.
"""

import csv
import shutil
import socket
import subprocess
import sys
import tarfile
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.server import ROOT, Server

MAX_DIFFERENCE = 0.01
ALWAYS = {"age_missing", "view_missing"}
"""Warnings of every PNG and JPEG, which state neither."""

IMAGES = (".dcm", ".png", ".jpg")


@pytest.fixture(scope="session")
def field(test_data: Path) -> Path:
    """Return the folder of the collection."""
    return test_data / "field"


def manifest(field: Path) -> list[dict[str, str]]:
    with (field / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def ask(client: httpx.Client, path: Path) -> httpx.Response:
    return client.post("/predict", files={"file": path.read_bytes()})


def fault(client: httpx.Client, field: Path, row: dict[str, str]) -> str:
    """Return how an answer differs from what the manifest expects, "" if it does not."""
    answer = ask(client, field / row["file"])
    body = answer.json()
    if "422" in row["expect"] and answer.status_code == 422:
        return "" if body["code"] in row["expect"] else f"{body['code']}"
    if answer.status_code != 200:
        return f"{answer.status_code} {body['code']}"
    if not row["twin"]:
        return "" if row["verdict"] != "fail" else "answered, and should be refused"
    difference = abs(body["probability"] - ask(client, field / row["twin"]).json()["probability"])
    told = {warning["code"] for warning in body["warnings"]} - ALWAYS
    if difference <= MAX_DIFFERENCE or (told and "warning" in row["expect"]):
        return ""
    return f"differs by {difference:.3f}, warnings {sorted(told)}"


def test_every_image_is_answered_as_expected(client: httpx.Client, field: Path) -> None:
    rows = [row for row in manifest(field) if row["file"].endswith(IMAGES)]
    faults = {row["file"]: fault(client, field, row) for row in rows}
    assert len(rows) > 20
    assert {file: text for file, text in faults.items() if text} == {}


def test_a_form_with_a_preamble_is_answered(server: Server, field: Path) -> None:
    address = urlsplit(server.url)
    with socket.create_connection((str(address.hostname), address.port or 80), 30) as connection:
        connection.sendall((field / "multipart-preamble.http").read_bytes())
        assert b" 200 " in connection.recv(64)


def test_a_folder_with_a_dangling_link_gets_its_answers(
    server: Server, field: Path, tmp_path: Path
) -> None:
    with tarfile.open(field / "folder-dangling-link.tar") as archive:
        archive.extractall(tmp_path, filter="fully_trusted")
    out = tmp_path / "out.csv"
    command = [sys.executable, "-m", "cxr_client", "predict", str(tmp_path)]
    done = subprocess.run(
        [*command, "--url", server.url, "--csv", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    with out.open(newline="") as file:
        codes = sorted(line["code"] for line in csv.DictReader(file))
    assert (codes, done.returncode) == (["", "", "unreadable"], 2)
    assert "dangling link" in done.stderr


def explored(folder: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "training", "explore"]
    return subprocess.run(
        [*command, "--data", str(folder), "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_a_table_with_quotes_is_explored(test_data: Path, field: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(field / "train-quoted.csv", data)
    with (data / "train-quoted.csv").open(newline="") as file:
        wanted = {line["ImageId"] for line in csv.DictReader(file)}
    for path in (test_data / "siim").rglob("*.dcm"):
        if path.stem in wanted:
            (data / path.name).symlink_to(path)
    done = explored(data, tmp_path / "out")
    assert done.returncode == 0, done.stderr


def test_dicom_files_with_capital_endings_are_explored(test_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    table = next((test_data / "siim").glob("*rle*.csv"))
    shutil.copy(table, data)
    for path in sorted((test_data / "siim").rglob("*.dcm"))[:24]:
        (data / f"{path.stem}.DCM").symlink_to(path)
    done = explored(data, tmp_path / "out")
    assert done.returncode == 0, done.stderr
