"""Read a request's body under limits that hold while it arrives, and watch for disconnection.

Nothing is written to disk. A client's file name is only echoed to that client.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect, Request

from app.api.multipart import MultipartFiles, UploadedFile, UploadLimits
from app.api.upload_budget import Reservation
from app.errors import ClientGone, MalformedRequest, SlowClient
from cxr.errors import TooLarge, UnsupportedFormat

T = TypeVar("T")

ON_LEAVE = "cxr.on_leave"
"""Name of the ASGI extension that holds functions to call when a request's client leaves."""

RAW_TYPES = ("application/dicom", "image/png", "image/jpeg", "application/octet-stream")
"""Media types of a body that is the file itself. The content decides about the real format."""

_ALIASES = frozenset((
    "application/x-dicom", "application/dicom+octet-stream", "image/dicom", "image/x-dicom",
    "image/jpg", "image/pjpeg", "image/x-jpeg", "image/jfif", "image/x-png",
    "application/x-octet-stream", "application/binary", "binary/octet-stream",
))  # fmt: skip
"""Other names that clients give to these types."""

MULTIPART = "multipart/form-data"

_FRAMING_BYTES = 64 * 1024
"""Bytes that the boundaries and headers of a multipart body may add to its files."""

_REFUSAL_S = 0.1
"""Seconds before a body is refused that has not arrived whole. The rest of it still has to be
received, and a sender that tries again at once would keep the event loop busy."""

_MAX_TYPE_LETTERS = 1024
"""Letters of a Content-Type. It is taken apart on the event loop, letter by letter."""


async def read_upload(request: Request, limits: UploadLimits, reservation: Reservation) -> bytes:
    """Read the one file of a request: a multipart part `file`, or a raw body.

    Raises:
        MalformedRequest: no file, several, or a broken body.
        EmptyFile: a file without bytes.
        UnsupportedFormat: the body has another media type.
        TooLarge: the body is over the limit, by its header or while it arrives.
        Overloaded: all uploads together would take too much memory.
        SlowClient: the body did not arrive in time.
        ClientGone: the client left.
    """
    _check_announced_size(request, limits.max_body_bytes + _FRAMING_BYTES, reservation)
    media_type, boundary = _content_type(request)
    if media_type == MULTIPART:
        files = await _read_multipart(request, boundary, "file", limits, reservation)
        if not files:
            raise MalformedRequest("There is no part named file.")
        return files[0].read()
    if not _is_file(media_type):
        raise UnsupportedFormat(_media_type_advice(media_type))
    _check_announced_size(request, limits.max_file_bytes, reservation)
    file = UploadedFile(None, limits.max_file_bytes)
    async with _in_time(limits.timeout_s):
        async for chunk in _chunks(request, limits.max_file_bytes, reservation):
            file.add(chunk)
    return file.read()


async def read_body(
    request: Request,
    max_bytes: int,
    timeout_s: float,
    reservation: Reservation,
    check: Callable[[bytes], None],
) -> bytes:
    """Read a body of any media type whole; raises as `read_upload`, or as `check` of a piece."""
    _check_announced_size(request, max_bytes, reservation)
    _content_type(request)  # refuses a Content-Encoding
    body = UploadedFile(None, max_bytes)
    async with _in_time(timeout_s):
        async for chunk in _chunks(request, max_bytes, reservation):
            try:
                check(chunk)
            except MalformedRequest:
                await asyncio.sleep(_REFUSAL_S)
                raise
            body.add(chunk)
    return body.read()


async def read_uploads(
    request: Request, limits: UploadLimits, reservation: Reservation
) -> list[UploadedFile]:
    """Return the files of a multipart body, in order; raise as `read_upload` does."""
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

    The work runs in the request's own task. A further task would wait for the event loop, and so
    for the interpreter lock, which decoding threads want too.
    """
    task, is_gone, is_done = asyncio.current_task(), False, False
    assert task is not None

    def leave() -> None:
        nonlocal is_gone
        if not is_done and not is_gone:
            is_gone = True
            task.cancel()

    try:
        with _watching(request, leave):
            return await work
    except asyncio.CancelledError as exc:
        if is_gone and task.uncancel() == 0:
            raise ClientGone("The client left.") from exc
        raise
    finally:
        is_done = True


@contextmanager
def _watching(request: Request, leave: Callable[[], None]) -> Iterator[None]:
    """Call a function if the client leaves while the block runs.

    Our own server tells it at once. Any other server is asked by a task.
    """
    told = request.scope.get("extensions", {}).get(ON_LEAVE)
    if told is not None:
        told.add(leave)
        try:
            yield
        finally:
            told.discard(leave)
        return

    def look(watch: asyncio.Task[None]) -> None:
        if not watch.cancelled():
            leave()

    watch = asyncio.create_task(_wait_for_disconnect(request))
    watch.add_done_callback(look)
    try:
        yield
    finally:
        watch.remove_done_callback(look)
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
    """Return the body's length by its header, or 0 if the header is missing."""
    announced = request.headers.get("content-length", "")
    return int(announced) if announced.isdigit() else 0


def _check_announced_size(request: Request, max_bytes: int, reservation: Reservation) -> None:
    """Refuse a body by its header, before its first byte; raise `TooLarge` or `Overloaded`."""
    num_bytes = announced_bytes(request)
    if num_bytes > max_bytes:
        raise TooLarge(f"The body has more than {max_bytes} bytes.")
    reservation.check(num_bytes)


async def _chunks(
    request: Request, max_bytes: int, reservation: Reservation
) -> AsyncIterator[bytes]:
    """Yield a body as it arrives; raise `TooLarge`, `Overloaded` or `ClientGone`."""
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
    """Return media type and boundary. A body without a type counts as octets (RFC 9110, 8.3)."""
    encodings = request.headers.getlist("content-encoding")
    if any(encoding.lower() != "identity" for encoding in encodings):
        raise UnsupportedFormat("Send the file as it is, without a Content-Encoding.")
    stated = request.headers.get("content-type") or RAW_TYPES[-1]
    if len(stated) > _MAX_TYPE_LETTERS:
        raise MalformedRequest("The Content-Type is longer than any media type and boundary.")
    media_type, options = parse_options_header(stated)
    return media_type.decode("latin-1").lower(), options.get(b"boundary", b"")


def _is_file(media_type: str) -> bool:
    return media_type in RAW_TYPES or media_type in _ALIASES


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
