"""Files of a list, or of an object store: everything that fsspec can open."""

import codecs
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from bulk.archive_parts import NOT_FOUND, Item
from bulk.errors import BulkError
from bulk.rows import Row
from bulk.sources.local_files import (
    FILE_URI,
    LocalReader,
    address_of,
    local_path,
    look_up,
)
from bulk.sources.retry import Attempts
from bulk.sources.source import Listing

_VERSION_KEYS = (
    "ETag", "etag", "md5Hash", "md5", "CRC", "mtime", "LastModified", "last_modified", "date_time",
)  # fmt: skip
"""What file systems tell of a file's content or age; each has some of these."""


@dataclass(frozen=True, slots=True)
class StoreSource:
    """Every file under an address of fsspec. Hidden files and folders are passed over."""

    url: str

    def listing(self) -> Listing:
        """List every file; raises `BulkError`."""
        try:
            system, root = _open(self.url)
            found = _find(system, root)
        except BulkError:
            raise
        except Exception as exc:  # each store's library raises errors of its own
            raise BulkError(f"the source can't be listed: {type(exc).__name__}") from exc
        visible = (path for path in found if "/." not in f"/{path.removeprefix(root)}")
        return Listing(tuple(_item(address_of(path), found[path]) for path in visible))

    def reader(self) -> "StoreReader":
        """Return a reader of this file system."""
        return StoreReader(self.url)

    def name(self, row: Row) -> Row:
        """Return the row as it is: a path is all that is known."""
        return row


@dataclass(frozen=True, slots=True)
class ListSource:
    """The files that a text file lists: a path or URL a line; # begins a comment.

    A line that names no file becomes a row with a problem.
    """

    path: Path

    def listing(self) -> Listing:
        """Look all files up; raises `BulkError` if the list can't be read."""
        try:
            content = self.path.read_bytes().removeprefix(codecs.BOM_UTF8)
        except OSError as exc:
            raise BulkError(f"the list can't be read: {exc.strerror}") from exc
        if b"\0" in content:
            raise BulkError("the list can't be read: save it as UTF-8 text")
        lines = {line.strip() for line in content.split(b"\n")}
        names = [line for line in lines if line and not line.startswith(b"#")]
        return Listing(tuple(map(_listed, names)))

    def reader(self) -> "ListReader":
        """Open nothing: each line names its own file system."""
        return ListReader()

    def name(self, row: Row) -> Row:
        """Return the row as it is: a path is all that is known."""
        return row


class StoreReader:
    """Reads files of one file system."""

    def __init__(self, url: str) -> None:
        """Open nothing: fsspec opens a file system once, and keeps it."""
        self._url = url
        self._attempt = Attempts(_is_final)

    def read(self, item: Item, max_bytes: int) -> bytes:
        """Return a file; raises `SourceUnreadable`, or `BulkError` if fsspec lacks a package."""

        def read() -> bytes:
            system, _ = _open(self._url)
            return _read(system, _decode(item.path), max_bytes)

        return self._attempt(read)

    def close(self) -> None:
        """Do nothing: fsspec keeps its file systems itself."""


class ListReader(LocalReader):
    """Reads files each of which may lie elsewhere."""

    def __init__(self) -> None:
        """Open nothing: fsspec opens a file system once, and keeps it."""
        super().__init__()
        self._attempt_url = Attempts(_is_final)

    def read(self, item: Item, max_bytes: int) -> bytes:
        """Return a file; raises `SourceUnreadable`, or `BulkError` if fsspec lacks a package."""
        if local_path(item.path) is not None:
            return super().read(item, max_bytes)

        def read() -> bytes:
            system, path = _open(item.path)
            return _read(system, path, max_bytes)

        return self._attempt_url(read)


def _open(url: str) -> tuple[AbstractFileSystem, str]:
    """Return a file system and a path in it; raises `BulkError`, or what its library raises."""
    try:
        system, root = url_to_fs(url)
    except ImportError as exc:
        raise BulkError(f"fsspec lacks a package for this kind of address: {exc}") from exc
    return system, root


def _find(system: AbstractFileSystem, root: str) -> Mapping[str, Mapping[str, object]]:
    """Return all files under a path. A folder that can't be listed is an error, if fsspec can tell.

    Stores that list all keys at once have no such folders, and do not know `on_error`.
    """
    try:
        found: Mapping[str, Mapping[str, object]] = system.find(root, detail=True, on_error="raise")
    except TypeError:
        found = system.find(root, detail=True)
    return found


def _read(system: AbstractFileSystem, path: str, max_bytes: int) -> bytes:
    with system.open(path, "rb") as file:
        return bytes(file.read(max_bytes + 1))


def _listed(line: bytes) -> Item:
    """Look a listed file up; raises `BulkError` if fsspec lacks a package."""
    address = line.decode(errors="surrogateescape")
    path = local_path(address)
    if path is not None:
        return look_up(path)
    name = line.decode(errors="replace")  # no URL has other letters
    try:
        system, key = _open(name)
        return _item(name, system.info(key))
    except BulkError:
        raise
    except Exception:  # each store's library raises errors of its own
        return Item(name, NOT_FOUND)


def _item(path: str, details: Mapping[str, object]) -> Item:
    size = details.get("size")
    num_bytes = size if isinstance(size, int) else 0
    known = [str(details[key]) for key in _VERSION_KEYS if details.get(key) is not None]
    return Item(path, "-".join([str(num_bytes), *known]), num_bytes)


def _decode(name: str) -> str:
    """Return the path of which `address_of` made a name; tar files hold some that are not UTF-8."""
    if not name.startswith(FILE_URI):
        return name
    return os.fsdecode(unquote_to_bytes(name[len(FILE_URI) :]))


def _is_final(error: Exception) -> bool:
    kinds = FileNotFoundError | PermissionError | IsADirectoryError | KeyError | ValueError
    return isinstance(error, kinds)
