"""What a run needs of a source of files."""

from dataclasses import dataclass
from typing import Protocol

from bulk.archive_parts import Item
from bulk.rows import Row


@dataclass(frozen=True, slots=True)
class Listing:
    """What a source has now."""

    items: tuple[Item, ...]
    num_passed_over: int = 0
    """Pipes, sockets and devices."""
    num_unlisted: int = 0
    """Folders, and links, behind which there may be files that can't be listed now."""


class Reader(Protocol):
    """An open connection to a source; one for each worker."""

    def read(self, item: Item, max_bytes: int) -> bytes:
        """Return a file.

        A file that is longer is cut off after `max_bytes + 1` bytes, which decoding then refuses.

        Raises:
            SourceUnreadable: the source did not give the file.
        """
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


class ArchiveSource(Protocol):
    """A source of files. It is sent to the workers, so it holds nothing open."""

    def listing(self) -> Listing:
        """List every file; raises `BulkError` if the source can't be listed."""
        ...

    def reader(self) -> Reader:
        """Open a connection."""
        ...

    def name(self, row: Row) -> Row:
        """Fill in the identifiers that the source knows of a file, such as DICOM UIDs."""
        ...
