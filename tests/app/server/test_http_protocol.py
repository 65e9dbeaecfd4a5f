"""What is spoken on a socket beyond one plain request: upgrades, pipelines, headers without an
end."""

import asyncio
import re
from pathlib import Path

import pytest

from tests.app.server.conversation import PNG, answer_of, connected, upload
from tests.app.serving import listening, until

pytestmark = pytest.mark.anyio

TYPE = b"host: [::1]\r\ncontent-type: image/png\r\n"

UPGRADE = (
    b"connection: keep-alive, Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: "
    b"AAMAAABkAAQAAP__\r\n"
)


@pytest.mark.parametrize(
    "cut", [0, 30, len(upload(extra=UPGRADE, body=b"")), len(upload(extra=UPGRADE)) - 9]
)
async def test_an_offer_of_another_protocol_is_passed_over_and_its_body_read(
    store: Path, cut: int
) -> None:
    request = upload(extra=UPGRADE)
    async with listening(store) as served, connected(served) as (reader, writer):
        writer.write(request[:cut])
        await asyncio.sleep(0.05)
        writer.write(request[cut:])
        first = await answer_of(reader)
        writer.write(upload())
        second = await answer_of(reader)

    assert (first[0], second[0]) == (200, 200)
    assert b'"finding"' in first[2]


async def test_what_follows_an_offer_of_another_protocol_is_no_further_request(store: Path) -> None:
    hidden = b"GET /models/smuggled HTTP/1.1\r\nhost: [::1]\r\n\r\n"
    async with listening(store) as served, connected(served) as (reader, writer):
        writer.write(upload(extra=UPGRADE, body=hidden))
        status, _, body = await answer_of(reader)
        writer.write(upload())
        after = await answer_of(reader)

    assert (status, after[0]) == (415, 200)
    assert b'"code":"unsupported_format"' in body


async def test_nothing_is_tunnelled(store: Path) -> None:
    async with listening(store) as served, connected(served) as (reader, writer):
        writer.write(
            b"CONNECT example.org:443 HTTP/1.1\r\nhost: example.org:443\r\n\r\nGET /livez "
            b"HTTP/1.1\r\nhost: [::1]\r\n\r\n"
        )
        status, head, _ = await answer_of(reader)
        rest = await reader.read()

    assert status == 400
    assert b"connection: close" in head
    assert rest == b""


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(b"GET /livez HTTP/1.1\r\n", id="headers"),
        pytest.param(b"GET /livez HTTP/1.1\r\nx-a: ", id="one header"),
        pytest.param(
            b"POST /predict HTTP/1.1\r\n%stransfer-encoding: chunked\r\n\r\n1\r\n.\r\n0\r\n" % TYPE,
            id="trailers",
        ),
    ],
)
async def test_headers_without_an_end_are_cut_off(store: Path, start: bytes) -> None:
    line = b"a" * 1000 if start.endswith(b": ") else b"x-a: %s\r\n" % (b"a" * 1000)
    async with listening(store) as served, connected(served) as (reader, writer):
        writer.write(start + 70 * line)
        status, _, body = await answer_of(reader)

    assert status == 400
    assert b'"code":"malformed_request"' in body


async def test_a_body_in_small_chunks_is_no_endless_header(store: Path) -> None:
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(part), part)
        for part in (PNG[at : at + 7] for at in range(0, len(PNG), 7))
    )
    async with listening(store) as served, connected(served) as (reader, writer):
        writer.write(
            b"POST /predict HTTP/1.1\r\n%stransfer-encoding: chunked\r\n\r\n%s0\r\n\r\n"
            % (TYPE, chunks)
        )
        status, _, _ = await answer_of(reader)

    assert status == 200


async def test_a_request_behind_another_has_its_own_time_for_its_body(store: Path) -> None:
    request = upload()
    async with (
        listening(store) as served,
        connected(served) as (reader, writer),
    ):  # headers have a second
        writer.write(b"GET /livez HTTP/1.1\r\nhost: [::1]\r\n\r\n" + request[:-9])
        first = await answer_of(reader)
        await asyncio.sleep(1.5)
        writer.write(request[-9:])
        second = await answer_of(reader)

    assert (first[0], second[0]) == (200, 200)


@pytest.mark.parametrize(
    ("sent", "status"),
    [(b"GET /\xff HTTP/1.1\r\n\r\n", "400"), (b"GET /livez HT", "408")],
    ids=["no HTTP", "half a request"],
)
async def test_what_can_not_be_read_is_counted_and_logged_under_the_id_that_it_is_answered_with(
    store: Path, sent: bytes, status: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "cxr.access")
    async with listening(store) as served, connected(served) as (reader, writer):
        writer.write(sent)
        _, head, body = await answer_of(reader)
        count = served.app.state.service.metrics.registry.get_sample_value
        counted = count(
            "cxr_request_duration_seconds_count", {"route": "unmatched", "status": status}
        )

    (request_id,) = re.findall(rb"x-request-id: (\w+)", head)
    assert b'"request_id":"%s"' % request_id in body
    assert counted == 1
    assert [
        getattr(record, "status", None) for record in caplog.records if record.name == "cxr.access"
    ] == [int(status)]


async def test_a_connection_that_is_never_used_counts_as_no_request(store: Path) -> None:
    async with listening(store) as served, connected(served) as (reader, _):
        status, _, _ = await answer_of(reader)
        count = served.app.state.service.metrics.registry.get_sample_value

        assert status == 408
        assert count("cxr_rejections_total", {"reason": "slow_client"}) is None
        await until(reader.at_eof)


async def test_a_target_of_thousands_of_parameters_is_refused_unread(store: Path) -> None:
    query = b"&".join(b"%d=1" % number for number in range(2000))
    async with listening(store) as served, connected(served) as (reader, writer):
        writer.write(b"GET /models?%s HTTP/1.1\r\nhost: [::1]\r\n\r\n" % query)
        status, _, body = await answer_of(reader)

    assert status == 400
    assert b"The target has more than 8192 bytes" in body
