"""The 33 cases of a public list for HTTP/1.1 servers (uNetworking's h1spec), in our own words.

Its server echoes bodies. Ours answers an upload instead.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.server.open_connections import ConnectionLimits
from tests.app.server.conversation import PNG, answer_of, connected, exchange
from tests.app.serving import Served, listening

pytestmark = pytest.mark.anyio

WHOLE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(PNG), PNG)


@pytest.fixture(scope="module")
async def served(store: Path) -> AsyncIterator[Served]:
    async with listening(store, limits=ConnectionLimits(header_timeout_s=300.0)) as served:
        yield served


@pytest.mark.parametrize(
    "end",
    [
        b"G", b"GET ", b"/liv", b"/livez ", b"HTTP", b"HTTP/1.1", b"HTTP/1.1\r", b"HTTP/1.1\r\n",
        b"Hos", b"Host:", b"Host: ", b"localhost", b"localhost\r", b"localhost\r\n",
        b"localhost\r\n\r",
    ],
)  # fmt: skip
async def test_the_server_waits_for_the_rest_of_a_request(served: Served, end: bytes) -> None:
    sent = WHOLE.index(end) + len(end)
    async with connected(served) as (reader, writer):
        writer.write(WHOLE[:sent])
        await writer.drain()
        assert (await exchange(served, WHOLE))[0] == 200  # the server has had its turn
        writer.write(WHOLE[sent:])
        assert (await answer_of(reader))[0] == 200  # and nothing came before it


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(WHOLE, id="a plain request"),
        pytest.param(b"GET /livez HTTP/1.1\r\nhoSt:\tlocalhost\r\nempty:\r\n\r\n", id="odd fields"),
        pytest.param(GET + b"X-Empty: \r\n\r\n", id="an empty value"),
        pytest.param(POST + b"Content-Length: %d\r\n\r\n%s" % (len(PNG), PNG), id="a body"),
        pytest.param(POST + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS, id="chunks"),
    ],
)
async def test_a_sound_request_is_answered(served: Served, request_: bytes) -> None:
    assert (await exchange(served, request_))[0] == 200


async def test_an_expectation_is_met_or_passed_over(served: Served) -> None:
    status, _, _ = await exchange(served, GET + b"Expect: 100-continue\r\n\r\n")
    assert status in (100, 200)


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(b"GET /livez \r\n\r\n", id="no version"),
        pytest.param(GET + b"X-Invalid[]: test\r\n\r\n", id="a bad name"),
        pytest.param(b"GET /livez HTTP/1.1\r\nContent-Length: 5\r\n\r\n", id="no Host"),
        pytest.param(GET + b"Host: example.org\r\n\r\n", id="two Hosts"),
        pytest.param(GET + b"Content-Length: -%s\r\n\r\n" % (b"123456789" * 3), id="far below 0"),
        pytest.param(GET + b"Content-Length: -1234\r\n\r\n", id="a length below 0"),
        pytest.param(GET + b"Content-Length: abc\r\n\r\n", id="a length in letters"),
        pytest.param(GET + b"X-Control: test\x07\r\n\r\n", id="a control character"),
        pytest.param(b"GET /livez HTTP/9.9\r\nHost: localhost\r\n\r\n", id="an unknown version"),
        pytest.param(b"Extra line" + WHOLE, id="words before the request"),
        pytest.param(GET + b"\rSome: test\r\n\r\n", id="a stray carriage return"),
        pytest.param(
            POST + b"content-LengtH: 5\r\nTransFer-Encoding: chunked\r\n\r\n" + CHUNKS,
            id="a length and chunks",
        ),
    ],
)
async def test_a_broken_request_is_refused(served: Served, request_: bytes) -> None:
    status, _, _ = await exchange(served, request_)
    assert 400 <= status <= 599
