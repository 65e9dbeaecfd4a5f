"""What is sent to do harm is answered or cut within its limit, over a real socket, and everybody
else is served."""

import selectors
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import httpx
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from tests.contract.test_real_files import MAX_RESIDENT_BYTES, resident_bytes
from tests.factories import chest, make_dicom, make_flat_jpeg, make_jpeg
from tests.phi_marked_files import deflate_bomb, png_bomb
from tests.server import ROOT, Server, running_server

HEADER_S, RECEIVE_S = 4, 3
SLACK_S = 30
"""What a busy machine may add to a limit."""

Sender = Callable[[socket.socket], None]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service with the bundles that the repository ships, and with less patience."""
    log = tmp_path_factory.mktemp("hostile") / "log"
    limits = {"header_timeout_seconds": HEADER_S, "receive_timeout_seconds": RECEIVE_S}
    engine = {
        "engine_lanes": 1,
        "engine_threads": 1,
        "max_batch": 1,
    }  # measuring them takes long and proves nothing here
    with running_server(ROOT / "model_store", log, **limits, **engine) as server:
        yield server


def lying_dicom() -> bytes:
    """A file that says 1024 x 1024 and holds a whole JPEG of 30000 x 30000."""
    frame = make_flat_jpeg(30_000, 30_000)
    return make_dicom(chest(1024, 1024), syntax=JPEGBaseline8Bit, PixelData=encapsulate([frame]))


@pytest.mark.parametrize(
    ("make", "max_bytes"),
    [
        pytest.param(
            lambda: deflate_bomb(191 * 2**20),
            196_000,
            id="195 KB of deflated zeros, 200 MB of them",
        ),
        pytest.param(lying_dicom, 11_000_000, id="a JPEG larger than its DICOM header says"),
        pytest.param(
            lambda: make_flat_jpeg(30_000, 30_000), 11_000_000, id="a JPEG of 900 megapixels"
        ),
        pytest.param(lambda: png_bomb(20_000), 400_000, id="a PNG of 400 megapixels"),
    ],
)
def test_a_file_that_grows_beyond_its_limit_is_refused(
    client: httpx.Client, server: Server, make: Callable[[], bytes], max_bytes: int
) -> None:
    bomb = make()
    assert len(bomb) < max_bytes
    answer = client.post("/predict", content=bomb)

    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert sum(map(resident_bytes, (server.process.pid, *server.children))) < MAX_RESIDENT_BYTES
    assert_others_are_served(client)


def test_a_large_jpeg_is_what_it_claims_to_be(client: httpx.Client) -> None:
    assert (
        client.post("/predict", content=make_flat_jpeg(3000, 3000)).json()["processing"]["rows"]
        == 3000
    )


MULTIPART = (
    b"POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: multipart/form-data; "
    b"boundary=b\r\ntransfer-encoding: chunked\r\n\r\n"
    b'36\r\n--b\r\ncontent-disposition: form-data; name="file"\r\n\r\n..\r\n'
)


def hurry(connection: socket.socket) -> None:
    """Send as much of a body as is taken."""
    connection.sendall(b"100000\r\n" + bytes(2**20) + b"\r\n")


def dawdle(connection: socket.socket) -> None:
    """Send little of a body, but never stop."""
    connection.sendall(b"1\r\n.\r\n")
    time.sleep(0.1)


@pytest.mark.parametrize(("send", "status"), [(hurry, b"413"), (dawdle, b"408")])
def test_a_multipart_body_that_never_ends_is_answered_and_cut(
    client: httpx.Client, server: Server, send: Sender, status: bytes
) -> None:
    with connect(server) as connection:
        connection.sendall(MULTIPART)
        answer = answer_to(connection, send, seconds=RECEIVE_S + HEADER_S + SLACK_S)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert_others_are_served(client)


def answer_to(connection: socket.socket, send: Sender, *, seconds: float) -> bytes:
    """Send until the other end closes the connection, and give what it said before."""
    answer = b""
    end = time.monotonic() + seconds
    connection.settimeout(seconds)
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        while time.monotonic() < end:
            try:
                if selector.select(0):
                    if not (received := connection.recv(4096)):
                        return answer
                    answer += received
                send(connection)
            except ConnectionError:
                return answer
    raise AssertionError("the connection was not cut")


def test_a_hundred_senders_of_slow_headers_are_cut_and_hold_up_nobody(
    client: httpx.Client, server: Server
) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(server)) for _ in range(100)]
        opened = time.monotonic()
        for byte in b"POS":
            for connection in connections:
                connection.sendall(bytes([byte]))
            time.sleep(0.2)
        assert_others_are_served(client)
        answers = [
            b"".join(iter(partial(connection.recv, 4096), b"")) for connection in connections
        ]
        assert time.monotonic() - opened < HEADER_S + SLACK_S
    assert all(answer.startswith(b"HTTP/1.1 408") for answer in answers)


def assert_others_are_served(client: httpx.Client) -> None:
    """Look whether the service lives and answers an ordinary upload."""
    assert client.get("/livez").status_code == 200
    assert client.post("/predict", content=make_jpeg(chest(512, 512))).status_code == 200


def connect(server: Server) -> socket.socket:
    """Open a connection of one's own."""
    url = httpx.URL(server.url)
    return socket.create_connection((url.host, url.port or 0), timeout=SLACK_S)
