"""HTTP/1.1 is read as RFC 9110 and RFC 9112 ask."""

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.app.server.conversation import LIVEZ, PNG, answer_of, connected, exchange, upload
from tests.app.serving import Served, listening

pytestmark = pytest.mark.anyio

CHUNKED = b"transfer-encoding: chunked\r\n"
HEAD = b"POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: image/png\r\n"
CHUNK = b"%x\r\n%s\r\n0\r\n" % (len(PNG), PNG)
SMALL = b"1\r\n.\r\n0\r\n\r\n"


@pytest.fixture(scope="module")
async def served(store: Path) -> AsyncIterator[Served]:
    async with listening(store) as served:
        yield served


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(b"GET /livez HTTP/1.1\r\n\r\n", id="no Host"),
        pytest.param(
            b"GET /livez HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", id="the same Host twice"
        ),
        pytest.param(b"GET /livez HTTP/1.1\r\nhost: a\r\nHost: b\r\n\r\n", id="two Hosts"),
        pytest.param(b"GET /livez HTTP/1.1\r\nhost: a, b\r\n\r\n", id="a list of Hosts"),
        pytest.param(b"GET /livez HTTP/1.1\r\nhost: a/b\r\n\r\n", id="a Host with a path"),
        pytest.param(b"GET /livez HTTP/1.1\r\nhost: u@a\r\n\r\n", id="a Host with a user"),
        pytest.param(b"GET http://a/livez HTTP/1.1\r\n\r\n", id="an absolute target without Host"),
        pytest.param(
            b"GET /livez HTTP/1.1\r\nhost: a\r\nx: %s\r\n\r\n" % (b"a" * 66_000),
            id="one long header in one piece",
        ),
        pytest.param(
            b"GET /livez?%s HTTP/1.1\r\nhost: a\r\n\r\n" % (b"a" * 66_000),
            id="a long target in one piece",
        ),
        pytest.param(
            HEAD + CHUNKED + b"\r\n1;%s\r\n.\r\n0\r\n\r\n" % (b"a" * 70_000),
            id="a long chunk extension in one piece",
        ),
        pytest.param(
            HEAD + CHUNKED + b"\r\n1\r\n.\r\n0\r\nx: %s\r\n\r\n" % (b"a" * 70_000),
            id="a long trailer in one piece",
        ),
    ],
)
async def test_a_request_that_breaks_the_rules_is_malformed(
    served: Served, request_: bytes
) -> None:
    status, head, body = await exchange(served, request_)

    assert (status, json.loads(body)["code"]) == (400, "malformed_request")
    assert b"connection: close" in head


async def test_a_request_of_http_1_0_needs_no_host(served: Served) -> None:
    status, _, _ = await exchange(served, b"GET /livez HTTP/1.0\r\n\r\n")

    assert status == 200


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"gzip,chunked", b"x, gzip, chunked"])
async def test_an_unknown_transfer_coding_is_not_implemented(served: Served, coding: bytes) -> None:
    request = HEAD + b"transfer-encoding: %s\r\n\r\n%s\r\n" % (coding, CHUNK)
    status, _, body = await exchange(served, request)

    assert (status, json.loads(body)["code"]) == (501, "not_implemented")


async def test_transfer_codings_in_two_lines_are_read_as_one_list(served: Served) -> None:
    request = HEAD + b"transfer-encoding: gzip\r\n%s\r\n%s\r\n" % (CHUNKED, CHUNK)
    status, _, _ = await exchange(served, request)

    assert status == 501


@pytest.mark.parametrize("is_at_once", [True, False])
async def test_a_trailer_is_no_header(store: Path, *, is_at_once: bool) -> None:
    trailers = b"x-request-id: of-the-trailer\r\nx-request-timeout-seconds: nonsense\r\n\r\n"
    async with listening(store) as served, connected(served) as (reader, writer):
        writer.write(HEAD + CHUNKED + b"\r\n" + CHUNK)
        if not is_at_once:
            await writer.drain()
        writer.write(trailers)
        status, head, _ = await answer_of(reader)

    assert status == 200
    assert b"of-the-trailer" not in head


async def test_a_key_in_a_trailer_opens_nothing(store: Path) -> None:
    key = "k" * 43
    digest = hashlib.sha256(key.encode()).hexdigest()
    trailer = b"authorization: Bearer %s\r\n\r\n" % key.encode()
    async with listening(store, api_keys=f"a:{digest}") as served:
        status, _, _ = await exchange(served, HEAD + CHUNKED + b"\r\n" + CHUNK + trailer)

    assert status == 401


async def test_six_hundred_offers_of_another_protocol_are_all_answered(served: Served) -> None:
    offer = b"GET /livez HTTP/1.1\r\nhost: [::1]\r\nconnection: upgrade\r\nupgrade: a\r\n\r\n"
    async with connected(served) as (reader, writer):
        writer.write(600 * offer)
        statuses = {(await answer_of(reader))[0] for _ in range(600)}

    assert statuses == {200}


@pytest.mark.parametrize(
    ("rest", "code"),
    [
        pytest.param(b"garbage\r\n\r\n", "malformed_request", id="garbage"),
        pytest.param(b"GET /livez HTTP/1.1\r\n\r\n", "malformed_request", id="no Host"),
        pytest.param(
            HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n", "not_implemented", id="no coding"
        ),
        pytest.param(HEAD + CHUNKED + b"\r\nxyz\r\n", "malformed_request", id="a broken body"),
        pytest.param(
            b"GET / HTTP/1.1\r\nhost: a\r\nx: %s\r\n\r\n" % (b"a" * 66_000),
            "malformed_request",
            id="long headers",
        ),
    ],
)
async def test_a_refusal_waits_for_the_answers_to_earlier_requests(
    served: Served, rest: bytes, code: str
) -> None:
    async with connected(served) as (reader, writer):
        writer.write(upload() + LIVEZ + rest)
        first = await answer_of(reader)
        second = await answer_of(reader)
        status, _, body = await answer_of(reader)
        end = await reader.read()

    assert (first[0], second[0]) == (200, 200)
    assert b'"finding"' in first[2]
    assert (status in (400, 501), json.loads(body)["code"]) == (True, code)
    assert end == b""


async def test_an_absolute_target_replaces_the_host(store: Path) -> None:
    async with listening(store) as served:
        status, _, _ = await exchange(
            served, b"GET http://evil.example/models HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
        )

    assert status == 421


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        (b"http://[::1]/models", 200),
        (b"http://[::1]:8000/models", 200),
        (b"http://localhost:8000/models", 200),
        (b"http://[2001:db8::1]/models", 421),
        (b"http://user@localhost/models", 400),
    ],
    ids=repr,
)
async def test_the_authority_of_an_absolute_target_is_read_as_a_host_is(
    store: Path, target: bytes, wanted: int
) -> None:
    async with listening(store) as served:
        status, _, _ = await exchange(
            served, b"GET %b HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" % target
        )

    assert status == wanted
