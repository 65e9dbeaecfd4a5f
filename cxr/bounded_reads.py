"""Bytes that a parser may read only so often.

pydicom and Pillow read one element or chunk after the other in Python, holding
the interpreter.  A file of a few megabytes can hold millions of empty ones, and
would stall everything else for minutes; so whoever parses, parses through this.
"""

import zlib
from io import BytesIO

from cxr.errors import NeedsWorker, TooLarge

MAX_READS = 50_000
"""Reads of one file: an element or a chunk takes two or three; real files have hundreds."""

MAX_THREAD_READS = 15_000
"""Reads of one file in a thread, about 0.1 s; the interpreter is held and nothing can stop it."""

MAX_PART_READS = 3_000
"""Reads of a file's meta information, or of one sequence; real ones have tens."""

_BYTES_A_READ = 2048
"""One more read is granted for so many bytes: values of unknown length are searched in pieces of 8
KiB."""


class BoundedReads(BytesIO):
    """A file in memory; raises `TooLarge` when it is read more often than any sound file needs."""

    def __init__(self, data: bytes, max_reads: int | None = None) -> None:
        """Take the bytes, and how often they may be read if not by their length."""
        super().__init__(data)
        if max_reads is None:
            max_reads = MAX_READS + len(data) // _BYTES_A_READ
        self._reads_left = max_reads

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as `BytesIO` does, and count."""
        self._reads_left -= 1
        self.check()
        return super().read(size)

    def check(self) -> None:
        """Raise `TooLarge` if it was read too often."""
        if self._reads_left < 0:
            raise self._excess()

    def _excess(self) -> Exception:
        return TooLarge("The file has more parts than are read.")


class ThreadReads(BoundedReads):
    """A file that a thread reads; raises `NeedsWorker` when that would take long."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data, MAX_THREAD_READS)

    def _excess(self) -> Exception:
        return NeedsWorker()


def inflate(deflated: bytes, max_bytes: int) -> bytes:
    """Inflate a raw deflate stream (PS3.5 A.5), never making more than the limit."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(deflated, max_bytes)
    if inflater.unconsumed_tail:
        raise TooLarge(f"The deflated DICOM file would inflate to more than {max_bytes} bytes.")
    return inflated
