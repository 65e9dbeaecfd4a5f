"""From a request's body to the bytes of its files, under caps that hold while it streams in.

Nothing is written to disk, and what a client calls its file is only ever echoed
to that client.  Whether the client is still there is watched here too.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect, Request

from app.api.multipart import MultipartFiles, UploadedFile, UploadLimits
from app.api.upload_budget import Reservation
from app.errors import ClientGone, MalformedRequest, SlowClient
from cxr.errors import TooLarge, UnsupportedFormat

T = TypeVar("T")

RAW_TYPES = ("application/dicom", "image/png", "image/jpeg", "application/octet-stream")
"""Media types of a body that is the file itself; which of them it really is, is told by its
content."""

MULTIPART = "multipart/form-data"

_FRAMING_BYTES = 64 * 1024
"""What the boundaries and headers of a multipart body may add to its files."""


async def read_upload(request: Request, limits: UploadLimits, reservation: Reservation) -> bytes:
    """Read the one file of a request: a multipart part `file`, or a raw body.

    Raises:
        MalformedRequest: no file, several, or a broken body.
        UnsupportedFormat: a body of another media type.
        TooLarge: over the limit, told by its header or while it streams in.
        Overloaded: with it, all uploads together would take too much memory.
        SlowClient: it did not arrive in time.
        ClientGone: the client left.
    """
    _check_announced_size(request, limits.max_body_bytes + _FRAMING_BYTES, reservation)
    media_type, boundary = _content_type(request)
    if media_type == MULTIPART:
        files = await _read_multipart(request, boundary, "file", limits, reservation)
        if not files:
            raise MalformedRequest("There is no part named file.")
        return files[0].read()
    if media_type not in RAW_TYPES:
        raise UnsupportedFormat(_media_type_advice(media_type))
    _check_announced_size(request, limits.max_file_bytes, reservation)
    file = UploadedFile(None, limits.max_file_bytes)
    async with _in_time(limits.timeout_s):
        async for chunk in _chunks(request, limits.max_file_bytes, reservation):
            file.add(chunk)
    return file.read()


async def read_uploads(
    request: Request, limits: UploadLimits, reservation: Reservation
) -> list[UploadedFile]:
    """Read the files of a multipart body, in order; raises as `read_upload`."""
    _check_announced_size(request, limits.max_body_bytes + _FRAMING_BYTES, reservation)
    media_type, boundary = _content_type(request)
    if media_type != MULTIPART:
        raise UnsupportedFormat(f"Send {MULTIPART} with one part named files for each file.")
    files = await _read_multipart(request, boundary, "files", limits, reservation)
    if not files:
        raise MalformedRequest("There is no part named files.")
    return files


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await work on a body that was read whole; cancel it and raise `ClientGone` if the client
    leaves.

    The work is done in the request's own task: each further one would have to wait its turn for the
    event loop, and so for the interpreter, which threads that decode want too.
    """
    task, is_gone, is_done = asyncio.current_task(), False, False
    assert task is not None

    def leave(watch: asyncio.Task[None]) -> None:
        nonlocal is_gone
        if (
            not watch.cancelled() and not is_done
        ):  # it may have been called up already when the work was done
            is_gone = True
            task.cancel()

    watch = asyncio.create_task(_wait_for_disconnect(request))
    watch.add_done_callback(leave)
    try:
        return await work
    except asyncio.CancelledError as exc:
        if is_gone and task.uncancel() == 0:
            raise ClientGone("The client left.") from exc
        raise
    finally:
        is_done = True
        watch.remove_done_callback(leave)
        watch.cancel()


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@asynccontextmanager
async def _in_time(timeout_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as exc:
        raise SlowClient(f"The body did not arrive within {timeout_s:g} seconds.") from exc


def announced_bytes(request: Request) -> int:
    """Return the length of the body as its header states it; 0 where it does not."""
    announced = request.headers.get("content-length", "")
    return int(announced) if announced.isdigit() else 0


def _check_announced_size(request: Request, max_bytes: int, reservation: Reservation) -> None:
    """Refuse a body by its header, before its first byte; raises `TooLarge` or `Overloaded`."""
    if announced_bytes(request) > max_bytes:
        raise TooLarge(f"The body has more than {max_bytes} bytes.")
    reservation.check(announced_bytes(request))


async def _chunks(
    request: Request, max_bytes: int, reservation: Reservation
) -> AsyncIterator[bytes]:
    """Return a body as it arrives, up to the caps; raises `TooLarge`, `Overloaded` or
    `ClientGone`.
    """
    received = 0
    try:
        async for chunk in request.stream():
            received += len(chunk)
            if received > max_bytes:
                raise TooLarge(f"The body has more than {max_bytes} bytes.")
            reservation.take(len(chunk))
            yield chunk
    except ClientDisconnect as exc:
        raise ClientGone("The client left.") from exc


def _content_type(request: Request) -> tuple[str, bytes]:
    """Read media type and boundary; a body without a type is taken as octets, as RFC 9110 section
    8.3 allows.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedFormat("Send the file as it is, without a Content-Encoding.")
    media_type, options = parse_options_header(request.headers.get("content-type") or RAW_TYPES[-1])
    return media_type.decode("latin-1").lower(), options.get(b"boundary", b"")


def _media_type_advice(media_type: str) -> str:
    advice = (
        f"Send {MULTIPART} with a part named file, or the file itself as one of "
        f"{', '.join(RAW_TYPES)}."
    )
    if media_type == "application/x-www-form-urlencoded":
        return (
            f"{advice} With curl that is -F file=@FILE, or --data-binary @FILE -H "
            f"'Content-Type: application/octet-stream'."
        )
    return advice


async def _read_multipart(
    request: Request, boundary: bytes, name: str, limits: UploadLimits, reservation: Reservation
) -> list[UploadedFile]:
    form = MultipartFiles(boundary, name, limits)
    async with _in_time(limits.timeout_s):
        async for chunk in _chunks(request, limits.max_body_bytes + _FRAMING_BYTES, reservation):
            form.feed(chunk)
    return form.finish()
