"""Nothing of a patient leaves the service but in the answer to its sender: marked names go through
every path."""

import base64
import hashlib
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom.uid import JPEG2000Lossless

from tests.bundles import write_made_bundle
from tests.factories import chest
from tests.phi_marked_files import (
    BORN,
    FOREIGN,
    MARK,
    broken_files,
    find_marks,
    marked_dicom,
    marked_png,
    sound_files,
)
from tests.server import Server, running_server
from tests.waiting import wait_until

KEY = f"{MARK}-key"
HEADERS = {
    "authorization": f"Bearer {KEY}", "user-agent": MARK, "referer": f"http://{MARK}/?name={MARK}",
    "cookie": f"name={MARK}",
    "from": f"{MARK}@{MARK}.org", "traceparent": MARK, "x-patient": BORN,
}  # fmt: skip
FILENAME = f"{MARK}_{BORN}.dcm"
MAX_UPLOAD_BYTES = 1_000_000


@contextmanager
def talkative_server(folder: Path, **settings: Any) -> Iterator[Server]:
    """Run the service at its most talkative, with every limit within reach."""
    store = folder / "store"
    write_made_bundle(store, "bright", 1)
    (store / "broken" / "1").mkdir(parents=True)
    settings = {
        "default_model": "bright", "log_level": "debug",
        "api_keys": f"ward:{hashlib.sha256(KEY.encode()).hexdigest()}",
        "max_upload_bytes": MAX_UPLOAD_BYTES, "max_inflated_bytes": 2**20,
        "receive_timeout_seconds": 1, "header_timeout_seconds": 1, "decode_seconds": 3,
        "decode_workers": 1, "queue_capacity": 1, "max_calls_per_minute": 0, **settings,
    }  # fmt: skip
    with running_server(store, folder / "log", **settings) as server:
        yield server


def marked_client(server: Server) -> httpx.Client:
    """Make a sender whose every header is marked."""
    return httpx.Client(base_url=server.url, headers=HEADERS, timeout=120)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service that most tests share."""
    with talkative_server(tmp_path_factory.mktemp("service")) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """A sender whose every header is marked."""
    with marked_client(server) as client:
        yield client


def test_no_mark_of_a_file_comes_back_or_is_written_down(
    client: httpx.Client, server: Server
) -> None:
    statuses = set()
    for name, data in (*sound_files(), *broken_files()):
        for answer in answers_about(client, data):
            statuses.add(answer.status_code)
            assert answer.status_code != 500, name
            if (
                answer.headers["content-type"] != "application/dicom"
            ):  # a result is about its patient, and says so
                assert find_marks(without_filenames(answer.text)) == set(), name
    assert statuses == {200, 413, 415, 422}
    assert_nothing_was_written_down(client, server)


def answers_about(client: httpx.Client, data: bytes) -> Iterator[httpx.Response]:
    """Send a file by every way in."""
    yield client.post(
        "/predict",
        files={"file": (FILENAME, data, "application/dicom")},
        params={"heatmap": "true"},
    )
    yield client.post(
        "/predict",
        content=data,
        headers={"content-disposition": f"attachment; filename={FILENAME}"},
    )
    yield client.post("/predict/batch", files=[("files", (FILENAME, data))])
    yield client.post("/predict/dicom", content=data, params={"result": "sr"})
    yield client.post("/predict/dicom", content=data, params={"result": "sc"})
    yield client.post("/preview", content=data)


def without_filenames(text: str) -> str:
    """Leave out what a batch echoes by contract: the sender's own names of its files."""
    return re.sub(r'"filename":"[^"]*"', "", text)


def test_no_mark_of_a_request_comes_back_or_is_written_down(
    client: httpx.Client, server: Server
) -> None:
    codes = set()
    for answer in refused_requests(client):
        assert answer.status_code >= 400
        assert find_marks(answer.text) == set(), answer.text
        codes.add(answer.json()["code"])
    assert codes == {
        "malformed_request", "unauthorized", "unknown_model", "not_found", "method_not_allowed",
        "not_acceptable", "too_large",
        "unsupported_format", "overloaded", "not_ready", "deadline_exceeded",
    }  # fmt: skip
    assert_nothing_was_written_down(client, server)


def refused_requests(client: httpx.Client) -> Iterator[httpx.Response]:
    """Provoke every problem that a request can have before its file is looked at."""
    png = marked_png()
    for name in (
        "model",
        "operating_point",
        "prevalence",
        "age_years",
        "sex",
        "view_position",
        "tta",
        "heatmap",
    ):
        for value in (MARK, FOREIGN):
            yield client.post("/predict", content=png, params={name: value})
    yield client.post("/predict/dicom", content=png, params={"result": MARK})
    yield client.post("/predict", content=png, params=[("sex", MARK), ("sex", MARK)])
    yield client.post("/predict", content=png, params={"tta": "true"})  # one view may wait
    yield refused_in_a_crowd(client, png)
    yield client.post("/predict", content=png, params={"model": "broken"})
    yield client.post("/predict", content=png, headers={"authorization": f"Bearer {MARK}"})
    yield client.post("/predict", content=png, headers={"accept": MARK})
    yield client.post("/predict", content=png, headers={"content-type": f"image/{MARK}"})
    yield client.post("/predict", content=png, headers={"content-encoding": MARK})
    yield client.post("/predict", content=png, headers={"x-request-timeout-seconds": MARK})
    yield client.post("/predict", content=slowly(png), headers={"x-request-timeout-seconds": "0.4"})
    yield client.post("/predict", content=png.ljust(MAX_UPLOAD_BYTES + 1))
    yield client.post("/predict", files={MARK: (FILENAME, png)})
    yield client.post("/predict", files=[("file", (FILENAME, png)), ("file", (FILENAME, png))])
    yield client.post(
        "/predict",
        content=f"--{MARK}".encode(),
        headers={"content-type": f"multipart/form-data; boundary={MARK}"},
    )
    yield client.post("/predict/batch", content=png)
    yield client.get(f"/models/{MARK}")
    yield client.get(f"/models/{FOREIGN}/card")
    yield client.get(f"/{MARK}/{FOREIGN}?name={MARK}")
    yield client.request(MARK, "/predict")
    yield client.delete(f"/models/{MARK}")


def refused_in_a_crowd(client: httpx.Client, png: bytes) -> httpx.Response:
    """Send several at once, until the service refuses one that may not wait."""

    def send(_: int) -> httpx.Response:
        return client.post("/predict", content=png)

    with ThreadPoolExecutor(8) as senders:
        while True:
            for answer in senders.map(send, range(8)):
                if answer.status_code == 503:
                    return answer


def slowly(data: bytes) -> Iterator[bytes]:
    """A body that takes longer than its own deadline."""
    yield data[:100]
    time.sleep(0.8)
    yield data[100:]


@pytest.mark.parametrize(
    "stop", [signal.SIGKILL, signal.SIGSEGV, None], ids=["killed", "crashed", "late"]
)
def test_a_worker_that_dies_over_a_marked_file_takes_the_marks_with_it(
    client: httpx.Client, server: Server, stop: signal.Signals | None
) -> None:
    data = marked_dicom(chest(256, 256), syntax=JPEG2000Lossless)
    assert client.post("/predict", content=data).status_code == 200
    (worker,) = (
        child
        for child in server.children
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    )
    os.kill(worker, signal.SIGSTOP)
    if stop is not None:
        threading.Timer(0.5, end_process, (worker, stop)).start()
    answer = client.post("/predict", content=data)

    assert answer.json()["code"] == ("corrupt_image" if stop == signal.SIGSEGV else "decode_limit")
    assert find_marks(answer.text) == set()
    assert_nothing_was_written_down(client, server)


def end_process(process: int, how: signal.Signals) -> None:
    """Have a stopped process meet its end."""
    os.kill(process, how)
    os.kill(process, signal.SIGCONT)


def test_no_mark_of_a_broken_connection_comes_back_or_is_written_down(
    client: httpx.Client, server: Server
) -> None:
    key = f"authorization: Bearer {KEY}\r\n"
    head = f"POST /predict?name={MARK} HTTP/1.1\r\nhost: {MARK}\r\nx-name: {MARK}\r\n{key}"
    length = (
        f"POST /predict HTTP/1.1\r\nhost: {MARK}\r\n{key}content-type: "
        f"application/dicom\r\ncontent-length: 9999\r\n\r\n"
    )
    ends = {
        "no HTTP": (f"\x16\x03\x01 {MARK}\r\n\r\n".encode(), b" 400 "),
        "headers that go on": (head.encode(), b" 408 "),
        "a body that stops": (length.encode() + MARK.encode() * 9, b" 408 "),
        "a body that breaks": (
            head.encode() + f"transfer-encoding: chunked\r\n\r\n{MARK}\r\n".encode(),
            b" 400 ",
        ),
    }
    for name, (sent, status) in ends.items():
        answer = converse(server, sent)
        assert status in answer[:20], (name, answer)
        assert find_marks(answer.decode()) == set(), name
    leave(server, length.encode() + MARK.encode() * 9)
    assert_nothing_was_written_down(client, server)


def converse(server: Server, sent: bytes) -> bytes:
    """Send bytes over a connection of their own, and read until it is closed or answered."""
    url = httpx.URL(server.url)
    with socket.create_connection((url.host, url.port or 0), timeout=60) as connection:
        connection.sendall(sent)
        answer = b""
        while b"}" not in answer and (chunk := connection.recv(4096)):
            answer += chunk
    return answer


def leave(server: Server, sent: bytes) -> None:
    """Send bytes, and go away."""
    url = httpx.URL(server.url)
    with socket.create_connection((url.host, url.port or 0)) as connection:
        connection.sendall(sent)
    time.sleep(0.2)


def test_a_call_over_a_key_s_limit_says_nothing_either(tmp_path: Path) -> None:
    with (
        talkative_server(tmp_path, max_calls_per_minute=1) as server,
        marked_client(server) as client,
    ):
        client.post("/predict", content=marked_png())
        refused = client.post("/predict", content=marked_png(), params={"model": MARK})

        assert refused.status_code == 429
        assert find_marks(refused.text) == set()
        assert_nothing_was_written_down(client, server)


def assert_nothing_was_written_down(client: httpx.Client, server: Server) -> None:
    """Look for marks in all that the service has logged, whoever wrote it, and in its metrics."""
    wait_until(lambda: '"route": "/predict"' in server.log.read_text())
    log = server.log.read_text()
    assert find_marks(log) == set()
    assert find_marks(client.get("/metrics").text) == set()


def test_marks_are_found_however_they_are_written() -> None:
    for text in (
        MARK.lower(),
        f"x{BORN}y",
        FOREIGN,
        ascii(FOREIGN),
        repr(FOREIGN.encode()),
        MARK.encode().hex(),
    ):
        assert find_marks(text)
    assert find_marks(base64.b64encode(MARK.encode() * 3).decode())
