"""Real files of archives and of other projects' regression tests answer as their manifests say."""

import asyncio
import csv
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pydicom
import pytest

from tests.server import Server

MAX_ANSWER_S = 2.0
TRIES = 3
"""A file is slow if it is slow each time; once may be the machine's doing."""

MAX_RESIDENT_BYTES = 2**30

WARNINGS = ("color_input", "modality_unusual")
NAMED_CODE = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b")


@pytest.mark.parametrize("folder", ["dicom", "bad"])
def test_every_file_answers_as_expected_and_soon(
    client: httpx.Client, server: Server, test_data: Path, folder: str
) -> None:
    faults = []
    for row in manifest(test_data / folder):
        data = (test_data / folder / row["file"]).read_bytes()
        for _ in range(TRIES):
            started = time.monotonic()
            answer = client.post("/predict", files={"file": data})
            if time.monotonic() - started <= MAX_ANSWER_S:
                break
        else:
            faults.append(f"{row['file']}: took too long")
        faults += [f"{row['file']}: {fault}" for fault in unmet(row["expect"], answer)]
    assert faults == []
    assert client.get("/livez").status_code == 200
    assert sum(map(resident_bytes, (server.process.pid, *server.children))) < MAX_RESIDENT_BYTES


def manifest(folder: Path) -> list[dict[str, str]]:
    """The rows of a folder's manifest."""
    with (folder / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def unmet(expect: str, answer: httpx.Response) -> Iterator[str]:
    """Say what of an `expect` column ("422 not_a_chest", "200 with color_input, or 422") does not
    hold."""
    body = answer.json()
    if answer.status_code not in map(int, re.findall(r"\b[2-5]\d\d\b", expect)):
        yield f"{answer.status_code} {body.get('code')} instead of {expect}"
    elif answer.status_code == 200:
        warned = {warning["code"] for warning in body["warnings"]}
        if missing := {code for code in NAMED_CODE.findall(expect) if code in WARNINGS} - warned:
            yield f"does not warn of {missing}"
        if "inverted true" in expect and not body["processing"]["inverted"]:
            yield "is not inverted"
        if "warns" in expect and not warned:
            yield "does not warn"
    else:
        named = [
            code
            for code in NAMED_CODE.findall(expect.split("(", maxsplit=1)[0])
            if code not in WARNINGS
        ]
        if named and body["code"] not in named:
            yield f"{body['code']} instead of {expect}"


def resident_bytes(pid: int) -> int:
    """Memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_age_sex_and_view_of_every_siim_file_are_the_headers(
    client: httpx.Client, test_data: Path
) -> None:
    for path in sorted((test_data / "siim").rglob("*.dcm")):
        with pydicom.config.disable_value_validation():
            header = pydicom.dcmread(path, stop_before_pixels=True)
            expected = (float(header.PatientAge), header.PatientSex, header.ViewPosition)
        stated = client.post(
            "/predict", content=path.read_bytes(), headers={"content-type": "application/dicom"}
        ).json()["metadata"]
        assert (stated["age_years"], stated["sex"], stated["view_position"]) == expected


def test_multipart_and_raw_bodies_give_the_same_answer(
    client: httpx.Client, test_data: Path
) -> None:
    for path in sorted((test_data / "siim").rglob("*.dcm"))[:3]:
        parameters = {"tta": "true", "heatmap": "true"}
        multipart = client.post(
            "/predict", params=parameters, files={"file": path.read_bytes()}
        ).json()
        raw = client.post(
            "/predict",
            params=parameters,
            content=path.read_bytes(),
            headers={"content-type": "application/octet-stream"},
        ).json()
        for answer in (multipart, raw):
            del answer["request_id"], answer["timings_ms"]
        assert multipart == raw


def test_32_uploads_at_once_are_answered_as_if_alone(
    client: httpx.Client, server: Server, test_data: Path
) -> None:
    uploads = [path.read_bytes() for path in sorted((test_data / "siim").rglob("*.dcm"))[:32]]
    alone = [
        client.post("/predict", files={"file": upload}).json()["probability"] for upload in uploads
    ]

    async def together() -> list[float]:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as several:
            answers = await asyncio.gather(
                *(several.post("/predict", files={"file": upload}) for upload in uploads)
            )
        return [answer.json()["probability"] for answer in answers]

    assert len(set(alone)) > 16
    assert asyncio.run(together()) == pytest.approx(alone, abs=1e-5)
