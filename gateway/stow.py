"""STOW-RS as a server: read a multipart/related body part by part, and take each instance."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.message import Message
from typing import Any

from pydicom.uid import UID
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from gateway.failpoints import failpoint
from gateway.header import UnreadableHeader, find_data_set, read_facts, read_meta
from gateway.presentation_contexts import SYNTAXES
from gateway.receive import CANNOT_UNDERSTAND, OUT_OF_RESOURCES, Incoming, Receiver, RefusedInstance
from gateway.settings import STOW_SOURCE

_JSON = "application/dicom+json"
_RETRY_AFTER_S = "30"
_NOT_THIS_STUDY = 0xC002
_SYNTAX_NOT_SUPPORTED = 0xC122
"""Failure reasons of PS3.18 table I.2-2."""


class BadBody(Exception):
    """The body is no multipart/related message of DICOM files, or a part is too large."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status


@dataclass(frozen=True, slots=True)
class StowRequest:
    """What a request says before its body."""

    content_type: str
    study_uid: str | None
    max_instance_bytes: int


@dataclass(frozen=True, slots=True)
class _Outcome:
    class_uid: str
    sop_uid: str
    failure: int | None


class _Parts:
    """Collects the bytes of parts as they come.

    Text before the first boundary is to be ignored (RFC 2046 5.1.1). The parser knows of no such
    text, so it is told of a part that begins before the body; what that part holds is dropped.
    """

    def __init__(self, boundary: bytes, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._open = bytearray()
        self._is_preamble = True
        self.whole: list[bytes] = []
        self.has_ended = False
        """Whether the closing boundary has come: without it the body was cut short."""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._open.clear,
                "on_part_data": self._on_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )
        self.feed(b"--" + boundary + b"\r\n\r\n\r\n")

    def feed(self, chunk: bytes) -> None:
        """Read on; raises `BadBody`."""
        try:
            self._parser.write(chunk)
        except MultipartParseError as exc:
            raise BadBody(400) from exc

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_preamble:
            return
        self._open += data[start:end]
        if len(self._open) > self._max_bytes:
            raise BadBody(413)

    def _on_part_end(self) -> None:
        if not self._is_preamble:
            self.whole.append(bytes(self._open))
        self._is_preamble = False
        self._open.clear()

    def _on_end(self) -> None:
        self.has_ended = True


async def receive_study(
    request: StowRequest, body: AsyncIterator[bytes], receiver: Receiver
) -> Response:
    """Take the instances of a request, each as soon as its last byte is there."""
    outcomes: list[_Outcome] = []
    try:
        parts = _Parts(_boundary(request.content_type), request.max_instance_bytes)
        async for chunk in body:
            parts.feed(chunk)
            while parts.whole:
                data = parts.whole.pop(0)
                outcomes.append(await run_in_threadpool(_take, data, request, receiver))
    except BadBody as bad:
        return Response(status_code=bad.status)
    except ClientDisconnect:
        return Response(status_code=400)  # nobody reads it; the sender has no answer, and repeats
    if not (outcomes and parts.has_ended):
        return Response(status_code=400)
    return _response(outcomes)


def _boundary(content_type: str) -> bytes:
    """Read the boundary of multipart/related; type must be application/dicom."""
    message = Message()
    message["content-type"] = content_type
    boundary = message.get_param("boundary")
    kind = message.get_param("type", "application/dicom")
    if message.get_content_type() != "multipart/related" or kind != "application/dicom":
        raise BadBody(415)
    if not isinstance(boundary, str) or not boundary.isascii() or not 0 < len(boundary) <= 70:
        raise BadBody(400)
    return boundary.encode()


def _take(data: bytes, request: StowRequest, receiver: Receiver) -> _Outcome:
    """Take one part; its outcome has no identifiers if it is no DICOM file."""
    try:
        class_uid, sop_uid, syntax = read_meta(data)
        start = find_data_set(data)
    except UnreadableHeader:
        return _Outcome("", "", CANNOT_UNDERSTAND)
    if UID(syntax) not in SYNTAXES:
        return _Outcome(class_uid, sop_uid, _SYNTAX_NOT_SUPPORTED)
    if request.study_uid is not None and _study_of(data) != request.study_uid:
        return _Outcome(class_uid, sop_uid, _NOT_THIS_STUDY)
    try:
        receiver.admit(Incoming(class_uid, sop_uid, syntax, data[start:], STOW_SOURCE))
    except RefusedInstance as refused:
        return _Outcome(class_uid, sop_uid, refused.status)
    return _Outcome(class_uid, sop_uid, None)


def _study_of(data: bytes) -> str | None:
    try:
        return read_facts(data).study_uid
    except UnreadableHeader:
        return None


def _response(outcomes: list[_Outcome]) -> Response:
    """Name what is stored and what is not (PS3.18 10.5.3)."""
    failed = [one for one in outcomes if one.failure is not None]
    stored = [one for one in outcomes if one.failure is None]
    document: dict[str, Any] = {}
    if stored:
        document["00081199"] = _sequence([_reference(one) for one in stored])
    if failed:
        document["00081198"] = _sequence(
            [_reference(one) | {"00081197": {"vr": "US", "Value": [one.failure]}} for one in failed]
        )
    failpoint("receive.responded")
    if failed and all(one.failure == OUT_OF_RESOURCES for one in outcomes):
        headers = {"retry-after": _RETRY_AFTER_S}
        return JSONResponse(document, status_code=503, media_type=_JSON, headers=headers)
    status = 200 if not failed else 202 if stored else 409
    return JSONResponse(document, status_code=status, media_type=_JSON)


def _sequence(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"vr": "SQ", "Value": items}


def _reference(outcome: _Outcome) -> dict[str, Any]:
    uids = {"00081150": outcome.class_uid, "00081155": outcome.sop_uid}
    return {tag: {"vr": "UI", "Value": [uid]} for tag, uid in uids.items() if uid}
