"""What can go wrong with a bulk run as a whole; a bad file is a row and never an error."""

from collections.abc import Iterator
from contextlib import contextmanager


class BulkError(Exception):
    """Something that the person at the keyboard can mend; the message says how."""


class SourceUnreadable(Exception):
    """The source did not give one of its files, after several attempts."""


class SpoiltPart(BulkError):
    """A part's file is missing, cut short or damaged; the part must be made again."""

    def __init__(self, file_name: str) -> None:
        super().__init__(f"{file_name} is not as it was written")


@contextmanager
def using_out() -> Iterator[None]:
    """Say in a sentence why the folder of answers can't be used; raises `BulkError`."""
    try:
        yield
    except OSError as exc:
        reason = exc.strerror or type(exc).__name__
        raise BulkError(
            f"--out can't be used: {reason}. The same command goes on as soon as it can."
        ) from exc
