"""Every real file gets results that a foreign validator passes and that say what the plain answer
says."""

import shutil
import subprocess
import time
from io import BytesIO
from pathlib import Path
from statistics import median

import httpx
import pydicom
import pytest

MAX_RATIO = 10.0
"""Of the time for a report to the time for a plain answer; about 2 on an idle machine."""


def certainty(report: bytes) -> float:
    """The probability that a report states."""
    group = pydicom.dcmread(BytesIO(report)).ContentSequence[-1].ContentSequence[0]
    number = next(item for item in group.ContentSequence if item.ValueType == "NUM")
    return float(number.MeasuredValueSequence[0].FloatingPointValue) / 100


def validator_errors(folder: Path) -> list[str]:
    """What dicom3tools' validator calls an error, for all files of a folder."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("no dciodvfy on this machine")
    found = []
    for path in sorted(folder.iterdir()):
        done = subprocess.run(
            ["dciodvfy", "-new", str(path)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        found += [
            f"{path.name}: {line}"
            for line in (done.stderr + done.stdout).splitlines()
            if line.startswith("Error")
        ]
    return found


@pytest.mark.parametrize(("result", "every"), [("sr", 1), ("sc", 10)])
def test_siim_files_get_valid_results(
    client: httpx.Client, test_data: Path, tmp_path: Path, result: str, every: int
) -> None:
    files = sorted((test_data / "siim").rglob("*.dcm"))[::every]
    for path in files:
        answer = client.post("/predict/dicom", params={"result": result}, content=path.read_bytes())
        assert answer.status_code == 200, answer.text
        (tmp_path / f"{path.stem}.dcm").write_bytes(answer.content)
    assert validator_errors(tmp_path) == []


def test_a_report_parses_back_to_the_probability_of_the_plain_answer_and_costs_little_more(
    client: httpx.Client, test_data: Path
) -> None:
    took: dict[str, list[float]] = {"/predict": [], "/predict/dicom?result=sr": []}
    for path in sorted((test_data / "siim").rglob("*.dcm"))[::5]:
        answers = []
        for address, times in took.items():
            started = time.perf_counter()
            answers.append(client.post(address, content=path.read_bytes()))
            times.append(time.perf_counter() - started)
        plain, report = answers
        assert certainty(report.content) == pytest.approx(plain.json()["probability"], abs=1e-6)
    plain_s, report_s = (median(times) for times in took.values())
    print(  # noqa: T201 - shown beside the bound
        f"median ms: plain {1000 * plain_s:.1f}, report {1000 * report_s:.1f}, ratio "
        f"{report_s / plain_s:.2f}"
    )
    assert report_s / plain_s < MAX_RATIO
