import csv
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest

from cxr_client import Client, ServiceProblem, Unreachable
from cxr_client.__main__ import ANSWERED, PROBLEMS, UNFINISHED, main
from cxr_client.table import Table
from tests.factories import chest, make_dicom, make_png
from tests.server import ROOT, Server, free_port, running_server

PROBLEM = {"code": "overloaded", "detail": "Too much is waiting.", "request_id": "1"}


@pytest.fixture(scope="module")
def server(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real service with the made model."""
    log = tmp_path_factory.mktemp("service") / "log"
    with running_server(store, log, default_model="bright", decode_workers=1) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two radiographs, a torn one, and a file that is no image."""
    folder = tmp_path / "films"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.dcm").write_bytes(make_dicom(chest(64, 64)))
    (folder / "deep" / "b").write_bytes(make_png(chest(64, 64)))
    (folder / "torn.png").write_bytes(make_png(chest(64, 64))[:200])
    (folder / "labels.csv").write_text("ImageId, EncodedPixels\n")
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def answering(*answers: httpx.Response | Exception) -> tuple[httpx.MockTransport, list[float]]:
    """A service that gives these answers in turn, and the times at which it was asked."""
    waiting, times = list(answers), []

    def handle(_: httpx.Request) -> httpx.Response:
        times.append(time.monotonic())
        answer = waiting.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return httpx.MockTransport(handle), times


def test_a_file_gets_the_services_answer(server: Server) -> None:
    radiograph = make_dicom(chest(64, 64))
    with Client(server.url) as client:
        answer = client.predict(radiograph, tta=True, operating_point="screen")
        own = httpx.post(
            f"{server.url}/predict?tta=true&operating_point=screen", content=radiograph
        ).json()
        assert client.model("bright")["name"] == "bright"
    assert answer["probability"] == own["probability"]
    assert answer["metadata"]["age_years"] == 41.0
    assert answer["tta"] is not None
    assert answer["heatmap"] is None


def test_what_the_service_refuses_is_said_once_with_its_code(server: Server) -> None:
    with Client(server.url) as client, pytest.raises(ServiceProblem) as caught:
        client.predict(b"no image at all")
    assert (caught.value.status, caught.value.code, caught.value.may_pass) == (
        415,
        "unsupported_format",
        False,
    )
    assert caught.value.request_id


@pytest.mark.parametrize(
    "retry_after",
    [lambda: "1", lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=1.9), usegmt=True)],
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_client_comes_back_when_it_was_told_to(
    status: int, retry_after: Callable[[], str]
) -> None:
    refusal = httpx.Response(status, json=PROBLEM, headers={"retry-after": retry_after()})
    transport, times = answering(refusal, httpx.Response(200, json={"probability": 0.5}))
    with Client(transport=transport) as client:
        assert client.predict(b"film")["probability"] == 0.5
    assert 0.8 < times[1] - times[0] < 2.5


def test_a_broken_connection_is_tried_again() -> None:
    transport, times = answering(
        httpx.ConnectError("refused"), httpx.Response(200, json={"probability": 0.5})
    )
    with Client(transport=transport) as client:
        client.predict(b"film")
    assert len(times) == 2


def test_patience_ends() -> None:
    port = free_port()
    with Client(f"http://127.0.0.1:{port}", patience_s=0.2) as client, pytest.raises(Unreachable):
        client.predict(b"film")
    refusal = httpx.Response(503, json=PROBLEM, headers={"retry-after": "3600"})
    transport, times = answering(refusal)
    with Client(transport=transport) as client, pytest.raises(ServiceProblem, match="overloaded"):
        client.predict(b"film")
    assert len(times) == 1


def test_a_proxys_own_page_is_a_problem_too() -> None:
    transport, _ = answering(httpx.Response(413, text="<html>"))
    with Client(transport=transport) as client, pytest.raises(ServiceProblem, match="http_413"):
        client.predict(b"film")


def test_a_key_travels_as_a_bearer_token_and_a_file_without_its_name(tmp_path: Path) -> None:
    seen = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={})

    (tmp_path / "SECRET^NAME.dcm").write_bytes(b"film")
    with Client("http://host/prefix/", key="k", transport=httpx.MockTransport(handle)) as client:
        client.predict(tmp_path / "SECRET^NAME.dcm", model="m", prevalence=0.05)
        client.predict_dicom(b"film", result="sr")
    assert str(seen[0].url) == "http://host/prefix/predict?model=m&prevalence=0.05"
    assert str(seen[1].url) == "http://host/prefix/predict/dicom?result=sr"
    assert seen[0].headers["authorization"] == "Bearer k"
    assert "SECRET" not in str(seen[0].headers)


def test_a_folder_becomes_a_table_with_a_line_for_each_image(
    server: Server, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    assert (
        main(["predict", str(folder), "--url", server.url, "--csv", str(out), "--model", "bright"])
        == PROBLEMS
    )
    radiograph, torn, deep = rows(out)
    assert (
        radiograph["file"],
        radiograph["code"],
        radiograph["age_years"],
        radiograph["model"],
    ) == (
        str(folder / "a.dcm"),
        "",
        "41.0",
        "bright",
    )
    assert 0 <= float(radiograph["probability"]) <= 1
    assert (deep["file"], deep["sex"]) == (str(folder / "deep" / "b"), "")
    assert (torn["code"], torn["probability"]) == ("corrupt_image", "")


def test_the_same_command_goes_on_where_the_table_ends(
    server: Server, folder: Path, tmp_path: Path
) -> None:
    out, command = (
        tmp_path / "out.csv",
        ["predict", str(folder), "--url", server.url, "--csv", str(tmp_path / "out.csv")],
    )
    main(command)
    whole = out.read_text()
    assert main(command) == ANSWERED
    assert out.read_text() == whole
    out.write_text(
        whole[: whole.rindex("corrupt_image") + 4]
    )  # the crash came in the middle of a line
    main(command)
    assert [row["file"] for row in rows(out)] == [
        row["file"] for row in csv.DictReader(whole.splitlines())
    ]


def test_a_file_name_that_is_a_formula_is_written_as_text_and_found_again(tmp_path: Path) -> None:
    names = ["=1+1+cmd.dcm", "+a.dcm", "-a.dcm", "@a.dcm", "\ta.dcm", "'a.dcm", "a.dcm"]
    problem = ServiceProblem(422, "corrupt_image", "=detail", "id")
    with Table(tmp_path / "table.csv", "") as table:
        for name in names:
            table.add(name, problem)
    lines = (tmp_path / "table.csv").read_text().splitlines()[1:]
    with Table(tmp_path / "table.csv", "") as again:
        done = again.done

    assert all(line.lstrip('"')[0] in "'a" for line in lines)
    assert ",'=detail," in lines[0]
    assert done == set(names)


def test_a_table_answers_one_question_only(
    server: Server, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "predict",
        str(folder / "a.dcm"),
        "--url",
        server.url,
        "--csv",
        str(tmp_path / "out.csv"),
    ]
    assert main(command) == ANSWERED
    assert main([*command, "--tta"]) == UNFINISHED
    assert "another question" in capsys.readouterr().err
    (tmp_path / "foreign.csv").write_text("ImageId,label\n1,2\n")
    assert main([*command[:-1], str(tmp_path / "foreign.csv")]) == UNFINISHED
    assert (tmp_path / "foreign.csv").read_text() == "ImageId,label\n1,2\n"


def test_files_that_nobody_answered_get_no_line(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    url = f"http://127.0.0.1:{free_port()}"
    assert (
        main(["predict", str(folder), "--url", url, "--csv", str(out), "--patience", "0.1"])
        == UNFINISHED
    )
    assert rows(out) == []


@pytest.mark.parametrize(
    "wrong",
    [("--model", "none"), ("--operating-point", "none"), ("--prevalence", "7")],
    ids=["model", "point", "prevalence"],
)
def test_a_wrong_question_stops_before_a_line_is_written(
    server: Server,
    folder: Path,
    tmp_path: Path,
    wrong: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (
        main(
            [
                "predict",
                str(folder),
                "--url",
                server.url,
                "--csv",
                str(tmp_path / "out.csv"),
                *wrong,
            ]
        )
        == UNFINISHED
    )
    assert rows(tmp_path / "out.csv") == []
    assert "cxr-serve: " in capsys.readouterr().err


def test_an_empty_file_is_a_problem_of_its_own(
    server: Server, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.dcm").touch()
    out = tmp_path / "out.csv"
    assert (
        main(
            [
                "predict",
                str(tmp_path / "empty.dcm"),
                str(folder),
                "--url",
                server.url,
                "--csv",
                str(out),
            ]
        )
        == PROBLEMS
    )
    assert [row["code"] for row in rows(out)] == ["malformed_request", "", "corrupt_image", ""]


def test_a_folder_is_given_up_when_nobody_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(30):
        (tmp_path / f"{number}.png").write_bytes(make_png(chest(64, 64)))
    url = f"http://127.0.0.1:{free_port()}"
    assert (
        main(["predict", str(tmp_path), "--url", url, "--patience", "0", "--jobs", "1"])
        == UNFINISHED
    )
    said = capsys.readouterr().err
    assert said.count("ConnectError") == 8
    assert "nobody answers" in said


def test_a_picture_is_drawn_as_the_service_reads_it(server: Server) -> None:
    with Client(server.url) as client:
        assert client.preview(make_png(chest(64, 64))).startswith(b"\x89PNG")


def test_a_command_without_a_table_writes_to_standard_output(server: Server, folder: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "cxr_client",
        "predict",
        str(folder / "a.dcm"),
        "--url",
        server.url,
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=250
    )
    (row,) = csv.DictReader(done.stdout.splitlines())
    assert row["finding"] == "brightness"


def test_the_client_loads_nothing_of_the_service() -> None:
    code = (
        "import sys, cxr_client.__main__; assert not {'fastapi', 'pydantic', 'onnxruntime', "
        "'numpy'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=250, cwd=ROOT)


def test_a_trace_is_passed_on_with_the_question() -> None:
    seen: list[str | None] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("traceparent"))
        return httpx.Response(200, content=b"report")

    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with Client(transport=httpx.MockTransport(handle)) as client:
        client.predict_dicom(b"film", result="sr", traceparent=trace)
        client.predict_dicom(b"film", result="sr")
    assert seen == [trace, None]


def test_a_problem_says_when_the_service_wants_to_be_asked_again() -> None:
    transport, _ = answering(httpx.Response(503, json=PROBLEM, headers={"retry-after": "7"}))
    with (
        Client(transport=transport, patience_s=0) as client,
        pytest.raises(ServiceProblem) as caught,
    ):
        client.predict(b"film")
    assert caught.value.retry_after_s == 7
