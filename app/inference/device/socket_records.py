"""What a serving process and the device process say to each other over a Unix socket.

    serving process to device process       device process to serving process
    OPEN     version, JSON: what to open    WELCOME
    RUN      version, slot, facts, ...      OPENED   version, JSON: how it runs, or a refusal
    CANCEL   slot                           DONE     slot, verdict, seconds
    CLOSE    version

A record has a fixed size; JSON follows those that carry it. Images and outputs never go through the
socket: they lie in a slot of shared memory. Nothing is pickled. A serving process numbers its own
versions and slots.
"""

import asyncio
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

RECORD = struct.Struct("<IIIIdd")
"""The layout of a `Record`."""

_MAX_JSON_BYTES = 2**16

SECONDS_BEFORE_RETRY = 2
"""Seconds that a sender is told to wait while the device process is replaced."""


class Kind(IntEnum):
    """The kinds of records."""

    WELCOME = 1
    OPEN = 2
    OPENED = 3
    CLOSE = 4
    RUN = 5
    CANCEL = 6
    DONE = 7


class Verdict(IntEnum):
    """How a run ended."""

    ANSWERED = 0
    LATE = 1
    """It did not start in time."""
    FAILED = 2
    """The graph failed on the image."""
    STOPPED = 3
    """The version answers nobody any more."""
    CANCELLED = 4


class Record(NamedTuple):
    """One record; fields that its kind does not use are 0."""

    kind: int
    version: int = 0
    slot: int = 0
    number: int = 0
    """Columns of metadata of RUN, verdict of DONE, bytes of JSON that follow."""
    first: float = 0.0
    """Latest start of RUN on `time.monotonic`'s clock; seconds that DONE waited."""
    second: float = 0.0
    """Seconds that DONE ran; 1 if RUN wants the map."""


class RecordReader:
    """Cuts a stream of bytes into records."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Record, bytes]]:
        """Take some bytes, and yield each record that is whole now, with its JSON.

        Raises:
            ValueError: the stream is none of records.
        """
        self._data += data
        place = 0
        try:
            while len(self._data) >= place + RECORD.size:
                record = Record._make(RECORD.unpack_from(self._data, place))
                end = place + RECORD.size
                if record.kind in (Kind.OPEN, Kind.OPENED):
                    if record.number > _MAX_JSON_BYTES:
                        raise ValueError("a record is too long")
                    end += record.number
                    if len(self._data) < end:
                        break
                body = bytes(self._data[place + RECORD.size : end])
                place = end
                yield record, body
        finally:
            del self._data[:place]


class RecordWriter:
    """Writes records to a transport; those of one turn of the event loop go together."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._waiting: list[bytes] = []

    def write(self, record: Record, body: bytes = b"") -> None:
        """Send a record soon, in order."""
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(RECORD.pack(*record) + body)

    def _flush(self) -> None:
        data = b"".join(self._waiting)
        self._waiting.clear()
        if not self._transport.is_closing():
            self._transport.write(data)
