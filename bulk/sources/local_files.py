"""Files of this machine's file system, whatever their names are.

A name is bytes to the system. As text, which Parquet wants, it is the path itself if that is UTF-8,
and a `file://` URI (RFC 8089) if not. A list may hold either.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from bulk.archive_parts import NOT_FOUND, Item
from bulk.errors import BulkError
from bulk.rows import Row
from bulk.sources.retry import Attempts
from bulk.sources.source import Listing
from cxr.regular_file import open_regular_file

_BUSY = frozenset(
    (
        errno.EIO,
        errno.ESTALE,
        errno.EAGAIN,
        errno.EBUSY,
        errno.ETIMEDOUT,
        errno.EMFILE,
        errno.ENFILE,
    )
)
"""Errors that may be over after a pause, as of a file server that starts again."""

FILE_URI = "file://"
_URL = re.compile(r"([a-z][a-z0-9+.-]*::)*[a-z][a-z0-9+.-]*://", re.IGNORECASE)
"""How an address for fsspec begins. Further on, `::` and `://` are letters of a name."""


def local_path(address: str) -> Path | None:
    """Return the absolute path that an address names, or None if it is a URL of another kind.

    `..` stays as it is: behind a linked folder it leads elsewhere than the text says.
    """
    if address.lower().startswith(FILE_URI):
        path = unquote_to_bytes(address[len(FILE_URI) :])
    elif _URL.match(address):
        return None
    else:
        path = address.encode(errors="surrogateescape")
    return Path(os.fsdecode(path)).absolute()


def address_of(path: Path | str) -> str:
    """Return a path as text, from which `local_path` returns the path if it is absolute."""
    name = os.fsencode(path)
    try:
        return name.decode()
    except UnicodeDecodeError:
        return FILE_URI + quote(name)


def look_up(path: Path) -> Item:
    """Describe a file as it is now."""
    try:
        return _item(path, path.stat())
    except (OSError, ValueError):  # ValueError: no path has a zero byte
        return Item(address_of(path), NOT_FOUND)


@dataclass(frozen=True, slots=True)
class FolderSource:
    """All files under a folder, or one file. Hidden files and folders are passed over.

    Linked folders are followed, after the others. A folder to which several ways lead is read once,
    so that a circle of links ends.
    """

    root: Path

    def listing(self) -> Listing:
        """List every file; raises `BulkError`."""
        try:
            is_folder = stat.S_ISDIR(self.root.stat().st_mode)
        except (OSError, ValueError) as exc:  # ValueError: no path has a zero byte
            reason = getattr(exc, "strerror", "this is no path")
            raise BulkError(f"the source can't be read: {reason}") from exc
        if not is_folder:
            return Listing((look_up(self.root),))
        items: list[Item] = []
        faults: list[OSError] = []
        num_passed_over = 0
        for path in self._paths(faults):
            try:
                facts = path.stat()
            except OSError as exc:
                if path.is_symlink():
                    faults.append(exc)
                elif not isinstance(exc, FileNotFoundError):  # such a file has just gone
                    items.append(Item(address_of(path), NOT_FOUND))
                continue
            if stat.S_ISREG(facts.st_mode):
                items.append(_item(path, facts))
            else:
                num_passed_over += 1
        return Listing(tuple(items), num_passed_over, len(faults))

    def reader(self) -> "LocalReader":
        """Open nothing: the system has its files open."""
        return LocalReader()

    def name(self, row: Row) -> Row:
        """Return the row as it is: a path is all that is known."""
        return row

    def holds(self, folder: Path) -> bool:
        """Tell whether a folder lies in this one, so that a run would read its own answers."""
        return folder.resolve().is_relative_to(self.root.resolve())

    def _paths(self, faults: list[OSError]) -> Iterator[Path]:
        """Yield what is no folder; note what can't be listed."""
        tops = [self.root]
        seen: set[tuple[int, int]] = set()
        for top in tops:  # grows meanwhile
            for name, folders, files in os.walk(top, onerror=faults.append):
                folder = Path(name)
                if _is_seen(folder, seen):
                    folders.clear()
                    continue
                folders[:] = sorted(filter(_is_visible, folders))
                tops += filter(Path.is_symlink, (folder / name for name in folders))
                yield from (folder / name for name in filter(_is_visible, files))


class LocalReader:
    """Reads files of this machine's file system."""

    def __init__(self) -> None:
        """Open nothing."""
        self._attempt = Attempts(_is_final)

    def read(self, item: Item, max_bytes: int) -> bytes:
        """Return a file; raises `SourceUnreadable`, also if it is no regular file."""
        path = local_path(item.path)
        assert path is not None

        def read() -> bytes:
            with open_regular_file(path, follow_links=True) as file:
                return file.read(max_bytes + 1)

        return self._attempt(read)

    def close(self) -> None:
        """Do nothing: nothing is open."""


def _item(path: Path, facts: os.stat_result) -> Item:
    return Item(address_of(path), f"{facts.st_size}-{facts.st_mtime_ns}", facts.st_size)


def _is_visible(name: str) -> bool:
    return not name.startswith(".")


def _is_seen(folder: Path, seen: set[tuple[int, int]]) -> bool:
    """Note a folder; return whether it was noted before, or has gone."""
    try:
        facts = folder.stat()
    except OSError:
        return True
    size_before = len(seen)
    seen.add((facts.st_dev, facts.st_ino))
    return len(seen) == size_before


def _is_final(error: Exception) -> bool:
    return not isinstance(error, OSError) or error.errno not in _BUSY
