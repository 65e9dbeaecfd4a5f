"""Bytes that a parser may read only so often.

pydicom and Pillow read one element or chunk after the other in Python, holding
the interpreter.  A file of a few megabytes can hold millions of empty ones, and
would stall everything else for minutes; so whoever parses, parses through this.
"""

from io import BytesIO

from cxr.errors import TooLarge

MAX_READS = 50_000
"""Reads of one file: an element or a chunk takes two or three; real files have hundreds."""

_BYTES_A_READ = 2048
"""One more read is granted for so many bytes: values of unknown length are searched in pieces of 8
KiB."""


class BoundedReads(BytesIO):
    """A file in memory; raises `TooLarge` when it is read more often than any sound file needs."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads_left = MAX_READS + len(data) // _BYTES_A_READ

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as `BytesIO` does, and count."""
        self._reads_left -= 1
        if self._reads_left < 0:
            raise TooLarge("The file has more parts than are read.")
        return super().read(size)
