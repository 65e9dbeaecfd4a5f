"""The body of an Open Inference request: counted while it arrives, and its file taken out of it.

Parsing JSON and undoing base64 hold the interpreter, so a large body would hold the event loop up
even from another thread. So the file's text is cut out before the rest is parsed, and is decoded
piece by piece.
"""

import base64
import binascii
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from app.errors import MalformedRequest

JSON_LENGTH_HEADER = "inference-header-content-length"

MAX_JSON_BYTES = 16 * 2**20
"""A larger file belongs behind the JSON; the binary extension takes any size."""

MAX_JSON_PARTS = 1000
"""Values in the JSON. A request has about twenty; each costs some microseconds and some hundred
bytes of memory on the event loop, and one more if it is wrong."""

LONG_BYTES = 64 * 1024
"""Text in base64 that is cut out of the JSON, and how near the beginning of the JSON it starts."""

_MAX_PARSED_BYTES = 2**20
"""JSON besides such a text."""

_COUNTED_BYTES = 64 * 1024
"""Bytes whose parts are counted at once, so that a body of many parts is refused by its start."""

_DECODED_BYTES = 256 * 1024
"""Bytes of base64 that are decoded at once, four for three; others may run in between."""

_BEFORE_A_VALUE = (b",", b"[", b"{")
"""One of these stands before each value of a list and each member of an object; base64 has none."""

_ESCAPES = ((b"\\/", b"/"), (b"\\u002b", b"+"), (b"\\u002B", b"+"))
"""Letters of base64 that some libraries escape in JSON."""

_FILE_MEMBER = re.compile(rb'"data"\s*:\s*\[\s*"')

_LENGTH_TEXT = re.compile(r"\d{1,20}", re.ASCII)
"""A length in a header. Python makes no number of thousands of digits."""


class JsonParts:
    """Count the values and members of JSON while it arrives."""

    def __init__(self, json_length: str | None) -> None:
        """Take the header that says where the JSON ends; None if all of the body is JSON."""
        self._num_left = MAX_JSON_BYTES + 1 if json_length is None else _length(json_length)
        self._num_parts = 0

    def add(self, piece: bytes) -> None:
        """Count a piece of the body; raise `MalformedRequest` if a request has fewer parts."""
        end = min(len(piece), self._num_left)
        self._num_left -= end
        for start in range(0, end, _COUNTED_BYTES):
            stop = min(start + _COUNTED_BYTES, end)
            self._num_parts += sum(piece.count(mark, start, stop) for mark in _BEFORE_A_VALUE)
            if self._num_parts > MAX_JSON_PARTS:
                raise MalformedRequest("The JSON has more parts than a request needs.")


@dataclass(frozen=True, slots=True)
class SplitBody:
    """A body in its parts: the JSON, perhaps a long text cut out of it, and what follows it."""

    json: bytes
    cut_name: str
    """Stands in the JSON where the text was."""
    cut: memoryview
    binary: memoryview

    def file_of(self, text: str) -> bytes:
        """Return the file that a text of the JSON holds in base64; raises `MalformedRequest`."""
        try:
            if text != self.cut_name:
                return base64.b64decode(text, validate=True)
            return b"".join(_decode(_without_escapes(self.cut)))
        except (binascii.Error, ValueError) as exc:
            raise MalformedRequest("inputs.0.data: must be the file in base64") from exc


def split_body(body: bytes, json_length: str | None) -> SplitBody:
    """Take a body apart; raise `MalformedRequest` if its JSON is too long or ends outside."""
    end = len(body) if json_length is None else _length(json_length)
    if end > len(body):
        raise MalformedRequest(f"{JSON_LENGTH_HEADER}: must be a length within the body")
    if end > MAX_JSON_BYTES:
        raise MalformedRequest("A large file belongs behind the JSON (binary tensor data).")
    view = memoryview(body)
    start, stop = _long_text(body, end)
    name = secrets.token_hex(16) if stop > start else ""
    if end - (stop - start) > _MAX_PARSED_BYTES:
        raise MalformedRequest("The JSON has more bytes than a request needs.")
    json = b"".join((view[:start], name.encode(), view[stop:end]))
    return SplitBody(json, name, view[start:stop], view[end:])


def _long_text(body: bytes, end: int) -> tuple[int, int]:
    """Return where the long text in base64 stands, an empty place if there is none."""
    for member in _FILE_MEMBER.finditer(body, 0, min(end, LONG_BYTES)):
        start = member.end()
        stop = body.find(b'"', start, end)
        if stop - start >= LONG_BYTES:
            return start, stop
    return 0, 0


def _without_escapes(text: memoryview) -> bytes:
    letters = bytes(text)
    if b"\\" in letters:
        for escape, letter in _ESCAPES:
            letters = letters.replace(escape, letter)
    return letters


def _decode(text: bytes) -> Iterator[bytes]:
    """Undo base64; raise `ValueError` for what is none, also for something behind its end."""
    for start in range(0, len(text), _DECODED_BYTES):
        piece = text[start : start + _DECODED_BYTES]
        if piece.endswith(b"=") and start + len(piece) < len(text):
            raise ValueError("base64 goes on behind its end")
        yield base64.b64decode(piece, validate=True)


def _length(json_length: str) -> int:
    if not _LENGTH_TEXT.fullmatch(json_length):
        raise MalformedRequest(f"{JSON_LENGTH_HEADER}: must be a length within the body")
    return int(json_length)
