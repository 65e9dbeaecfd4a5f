"""Files of a folder, of a list, or of an object store: everything that fsspec can open."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import fsspec
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from bulk.archive_parts import Item
from bulk.errors import BulkError
from bulk.rows import Row
from bulk.sources.retry import attempt

_VERSION_KEYS = (
    "ETag", "etag", "md5Hash", "md5", "CRC", "mtime", "LastModified", "last_modified", "date_time",
)  # fmt: skip
"""What file systems tell of a file's content or age; each has some of these."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """Every file under a folder, local or of an object store; hidden files are passed over."""

    url: str

    def items(self) -> Iterator[Item]:
        """Yield every file; raises `BulkError`."""
        system, root = _open(self.url)
        try:
            found: Mapping[str, Mapping[str, object]] = system.find(root, detail=True)
        except Exception as exc:  # each store's library raises errors of its own
            raise BulkError(f"the source can't be listed: {type(exc).__name__}") from exc
        if not found:
            raise BulkError("the source has no files")
        for path, details in found.items():
            if not path.rpartition("/")[2].startswith("."):
                yield _item(path, details)

    def reader(self) -> "FileReader":
        """Open the file system."""
        return FileReader(_open(self.url)[0])

    def name(self, row: Row) -> Row:
        """Return the row as it is: a path is all that is known."""
        return row


@dataclass(frozen=True, slots=True)
class ListSource:
    """The files that a text file lists: a path or URL a line; # begins a comment."""

    path: str

    def items(self) -> Iterator[Item]:
        """Yield the files that exist and those that do not: these become rows with a problem.

        Raises:
            BulkError: the list can't be read.
        """
        try:
            lines = Path(self.path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as exc:
            raise BulkError(f"the list can't be read: {type(exc).__name__}") from exc
        urls = {line.strip() for line in lines if line.strip() and not line.startswith("#")}
        if not urls:
            raise BulkError("the list has no files")
        yield from map(_listed, sorted(urls))

    def reader(self) -> "ListReader":
        """Open nothing: each line names its own file system."""
        return ListReader()

    def name(self, row: Row) -> Row:
        """Return the row as it is: a path is all that is known."""
        return row


@dataclass(frozen=True, slots=True)
class FileReader:
    """Reads files of one file system."""

    system: AbstractFileSystem

    def read(self, item: Item, max_bytes: int) -> bytes:
        """Return a file; raises `SourceUnreadable`."""
        return attempt(lambda: _read(self.system, item.path, max_bytes), is_final=_is_final)

    def close(self) -> None:
        """Do nothing: fsspec keeps its file systems itself."""


class ListReader:
    """Reads files each of which may lie elsewhere; fsspec keeps one connection for each store."""

    def read(self, item: Item, max_bytes: int) -> bytes:
        """Return a file; raises `SourceUnreadable`."""

        def read() -> bytes:
            system, path = url_to_fs(item.path)
            return _read(system, path, max_bytes)

        return attempt(read, is_final=_is_final)

    def close(self) -> None:
        """Do nothing: fsspec keeps its file systems itself."""


def _open(url: str) -> tuple[AbstractFileSystem, str]:
    try:
        system, root = url_to_fs(url)
    except (ImportError, ValueError) as exc:
        known = ", ".join(sorted(fsspec.available_protocols())[:6])
        raise BulkError(f"fsspec can't open this kind of address ({known}, ...): {exc}") from exc
    return system, root


def _read(system: AbstractFileSystem, path: str, max_bytes: int) -> bytes:
    with system.open(path, "rb") as file:
        return bytes(file.read(max_bytes + 1))


def _listed(url: str) -> Item:
    """Look a listed file up; its fingerprint is "missing" if that fails."""
    try:
        system, path = url_to_fs(url)
        details = system.info(path)
    except Exception:  # each store's library raises errors of its own
        return Item(url, "missing")
    return _item(url, details)


def _item(path: str, details: Mapping[str, object]) -> Item:
    size = details.get("size")
    num_bytes = size if isinstance(size, int) else 0
    known = [str(details[key]) for key in _VERSION_KEYS if details.get(key) is not None]
    return Item(path, "-".join([str(num_bytes), *known]), num_bytes)


def _is_final(error: Exception) -> bool:
    return isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | KeyError)


def is_inside(folder: Path, url: str) -> bool:
    """Tell whether a local folder lies in a source, so that a run would read its own answers."""
    system, root = _open(url)
    if system.protocol not in ("file", ("file", "local")):
        return False
    return folder.resolve().is_relative_to(Path(os.path.realpath(root)))
