import asyncio
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.requests import Request

from app.api.multipart import UploadedFile, UploadLimits
from app.api.upload import read_upload, read_uploads, while_connected
from app.api.upload_budget import Reservation, UploadBudget
from app.errors import ClientGone, MalformedRequest, Overloaded, SlowClient
from cxr.errors import EmptyFile, TooLarge

pytestmark = pytest.mark.anyio

LIMITS = UploadLimits(max_file_bytes=3_000_000, max_body_bytes=4_000_000, max_files=3, timeout_s=5)
DICOM = {"content-type": "application/dicom"}
FORM = {"content-type": "multipart/form-data; boundary=frontier"}


def request(
    chunks: list[bytes], headers: dict[str, str], *, ends: bool = True, leaves: bool = False
) -> Request:
    """A request whose body comes in these chunks; it may never end, or its client may leave."""
    messages: Iterator[dict[str, Any]] = iter(
        [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
        + ([{"type": "http.request", "body": b""}] if ends else [])
        + ([{"type": "http.disconnect"}] if leaves else [])
    )

    async def receive() -> dict[str, Any]:
        try:
            return next(messages)
        except StopIteration:
            await asyncio.Event().wait()
            raise

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": raw}, receive)


def reservation(max_bytes: int = 10_000_000) -> Reservation:
    """What a request may hold where nothing else is held."""
    return Reservation(UploadBudget(max_bytes))


def form(*files: bytes, name: str = "files") -> bytes:
    parts = [
        f'--frontier\r\nContent-Disposition: form-data; name="{name}"; filename="{number}.dcm"\r\n'
        f"Content-Type: application/dicom\r\n\r\n".encode()
        + file
        + b"\r\n"
        for number, file in enumerate(files)
    ]
    return b"".join(parts) + b"--frontier--\r\n"


def cut(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


async def test_a_raw_body_is_the_file() -> None:
    assert await read_upload(request([b"ab", b"cd"], DICOM), LIMITS, reservation()) == b"abcd"


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
async def test_a_form_is_read_however_it_is_cut(size: int) -> None:
    files = [b"\r\n--frontie", b"\r\n--frontierx\r\n" * 9, bytes(range(256)) * 5]

    uploads = await read_uploads(request(cut(form(*files), size), FORM), LIMITS, reservation())

    assert [upload.read() for upload in uploads] == files
    assert [upload.filename for upload in uploads] == ["0.dcm", "1.dcm", "2.dcm"]


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
@pytest.mark.parametrize(
    "preamble", [b"\r\n", b"This is a message in MIME format.\r\n", b"-- a\n--frontie\r\n\r\n"]
)
async def test_what_stands_before_the_first_boundary_is_ignored(size: int, preamble: bytes) -> None:
    body = preamble + form(b"pixels", name="file")
    assert await read_upload(request(cut(body, size), FORM), LIMITS, reservation()) == b"pixels"


async def test_a_preamble_without_an_end_is_refused_while_it_arrives() -> None:
    chunks = [b"no boundary here\r\n" * 500] * 10
    with pytest.raises(MalformedRequest, match="no boundary"):
        await read_upload(request(chunks, FORM, ends=False), LIMITS, reservation())


@pytest.mark.parametrize("name", ["a;b.dcm", "a/b.dcm", "a%0d%0ab.dcm", "\u5f71.dcm", "a\\b.dcm"])
async def test_a_file_may_have_any_name(name: str) -> None:
    body = (
        f'--frontier\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        f"pixels\r\n--frontier--\r\n"
    ).encode()
    assert await read_upload(request([body], FORM), LIMITS, reservation()) == b"pixels"


async def test_a_form_without_a_chosen_file_is_told_to_be_empty() -> None:
    with pytest.raises(EmptyFile, match="empty"):
        await read_upload(request([form(b"", name="file")], FORM), LIMITS, reservation())


async def test_a_form_whose_media_type_has_no_boundary_is_refused() -> None:
    headers = {"content-type": "multipart/form-data"}
    with pytest.raises(MalformedRequest, match="boundary"):
        await read_upload(request([form(b"x", name="file")], headers), LIMITS, reservation())


@pytest.mark.parametrize(
    "media_type",
    [
        "image/jpg",
        "image/pjpeg",
        "Image/X-PNG",
        "binary/octet-stream",
        "application/x-dicom",
        'application/dicom; type="application/dicom"; transfer-syntax=*',
    ],
)
async def test_a_raw_body_may_be_called_what_clients_call_it(media_type: str) -> None:
    headers = {"content-type": media_type}
    assert await read_upload(request([b"ab"], headers), LIMITS, reservation()) == b"ab"


async def test_a_file_may_come_as_a_part_without_a_filename() -> None:
    body = (
        b'--frontier\r\ncontent-disposition: form-data; name="file"\r\n\r\npixels\r\n--frontier--'
    )

    assert await read_upload(request([body], FORM), LIMITS, reservation()) == b"pixels"


async def test_nothing_is_written_to_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    large = b"\0" * 2_500_000  # what frameworks spool to disk

    assert (
        await read_upload(
            request(cut(form(large, name="file"), 65_536), FORM), LIMITS, reservation()
        )
        == large
    )


async def test_a_file_over_its_limit_is_not_kept_while_the_others_are() -> None:
    body = form(b"small", b"\0" * 3_000_001, b"also small")

    small, large, other = await read_uploads(
        request(cut(body, 65_536), FORM), LIMITS, reservation()
    )

    assert (small.read(), other.read()) == (b"small", b"also small")
    assert not large._content.getvalue()
    with pytest.raises(TooLarge):
        large.read()


async def test_a_body_that_never_ends_is_cut_at_the_limit() -> None:
    endless = [form(b"", name="file").partition(b"\r\n--frontier--")[0], *[b"\0" * 100_000] * 45]

    with pytest.raises(TooLarge):
        await read_upload(request(endless, FORM, ends=False), LIMITS, reservation())


async def test_more_parts_than_allowed_are_refused_before_the_rest_is_read() -> None:
    with pytest.raises(MalformedRequest):
        await read_uploads(request([form(*[b"x"] * 4)], FORM, ends=False), LIMITS, reservation())


async def test_a_client_that_stops_sending_is_given_up() -> None:
    limits = UploadLimits(1000, 1000, 1, timeout_s=0.05)

    with pytest.raises(SlowClient):
        await read_upload(request([b"a"], DICOM, ends=False), limits, reservation())


async def test_a_client_that_leaves_while_it_sends_is_noticed() -> None:
    with pytest.raises(ClientGone):
        await read_upload(request([b"a"], DICOM, ends=False, leaves=True), LIMITS, reservation())


async def test_a_client_that_leaves_stops_the_work_for_it() -> None:
    stopped = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    with pytest.raises(ClientGone):
        await while_connected(request([], {}, ends=False, leaves=True), work())
    await asyncio.wait_for(stopped.wait(), 1)


async def test_work_for_a_client_that_stays_comes_back() -> None:
    async def work() -> int:
        await asyncio.sleep(0.01)
        return 42

    assert await while_connected(request([], {}, ends=False), work()) == 42


async def test_an_error_of_the_work_is_its_own() -> None:
    async def work() -> None:
        raise MalformedRequest("no")

    with pytest.raises(MalformedRequest):
        await while_connected(request([], {}, ends=False), work())


def test_a_file_that_was_too_large_or_is_empty_has_nothing_to_read() -> None:
    file = UploadedFile("a", max_bytes=3)
    with pytest.raises(EmptyFile):
        file.read()
    file.add(b"abc")
    assert file.read() == b"abc"
    file.add(b"d")
    with pytest.raises(TooLarge):
        file.read()


async def test_a_body_that_would_not_fit_is_refused_before_it_is_read() -> None:
    with pytest.raises(Overloaded):
        await read_upload(
            request([], {**DICOM, "content-length": "5001"}, ends=False), LIMITS, reservation(5000)
        )


@pytest.mark.parametrize("headers", [DICOM, FORM])
async def test_a_body_of_unknown_length_is_refused_when_it_does_not_fit_any_more(
    headers: dict[str, str],
) -> None:
    body = form(b"x" * 9000, name="file")
    with pytest.raises(Overloaded):
        await read_upload(request(cut(body, 1000), headers, ends=False), LIMITS, reservation(5000))


async def test_what_a_request_held_is_let_go_when_it_ends() -> None:
    budget = UploadBudget(5000)
    for _ in range(3):
        with budget.reserve() as one, budget.reserve() as other:
            await read_upload(request([b"x" * 3000], DICOM), LIMITS, one)
            with pytest.raises(Overloaded):
                await read_upload(request([b"x" * 3000], DICOM), LIMITS, other)
        assert budget.held_bytes == 0


async def test_a_content_type_longer_than_any_is_refused_before_it_is_taken_apart() -> None:
    headers = {"content-type": "image/png" + ";" * 60_000}
    with UploadBudget(5000).reserve() as reservation, pytest.raises(MalformedRequest):
        await read_upload(request([b"x"], headers), LIMITS, reservation)
