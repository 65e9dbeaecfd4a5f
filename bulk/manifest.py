"""Which parts of a run are whole: the one place that says what counts.

OUT/model=<name>/version=<number>/
    part-<hash>.parquet      answers
    _job.json                what all parts have in common
    _manifest.jsonl          one line for each part that counts; it may name one that it replaces
    _lock                    held by the one run that writes here
"""

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from bulk.archive_parts import NOT_FOUND, ArchivePart, Item, part_file_name, renew
from bulk.errors import BulkError, SpoiltPart, using_out
from bulk.part_file import read_table, written_whole
from bulk.rows import UNREADABLE

MANIFEST = "_manifest.jsonl"

_OURS = re.compile(
    r"(\.begun-[0-9a-f]{32})"
    r"|(part-[0-9a-f]{32}\.parquet)"
    r"|(\.(part-[0-9a-f]{32}\.parquet|_\w+\.jsonl?)\.[0-9a-f]{32})"
)
"""Journals, parts, and drafts of files. Files of other names are not ours to remove."""


class JobFile(BaseModel):
    """`_job.json`: what all parts of a folder have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    identity: str
    part_files: int


class Entry(BaseModel):
    """One line of the manifest: a part that counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    part: str
    replaces: str = ""
    """The part that no longer counts because of this one."""
    rows: int = 0
    num_problems: int = 0
    num_unreadable: int = 0
    """Files that the source did not give while the part was made."""
    num_bytes: int = 0
    """Of the Parquet file."""
    seconds: float = 0.0
    """One core was busy with the part for so long."""

    @property
    def file_name(self) -> str:
        """Return the name of the part's Parquet file."""
        return part_file_name(self.part)


@dataclass(frozen=True, slots=True)
class Remaining:
    """What a run has to do."""

    new: list[Item]
    """Files without a row."""
    renewed: list[ArchivePart]
    """Parts with files that have changed, or could not be read before."""
    num_kept: int
    """Files that can't be looked up now; their answers stay."""


class ArchiveManifest:
    """The manifest of a folder that this run holds alone."""

    def __init__(self, folder: Path) -> None:
        """Read the manifest, and mend it if lines are damaged."""
        self._folder = folder
        content = read_manifest(folder)
        self._entries, _ = parse_entries(content)
        if content != b"".join(map(_line, self.entries)):
            self._rewrite()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Return the parts that count."""
        return tuple(self._entries.values())

    def check_job(self, job: JobFile) -> JobFile:
        """Return what the folder's first run wrote down, or write `job` down.

        Raises:
            BulkError: the folder's answers come from another model file or other options.
        """
        path = self._folder / "_job.json"
        try:
            known = JobFile.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            with written_whole(path) as file:
                file.write(job.model_dump_json().encode())
            return job
        except (OSError, ValidationError) as exc:
            raise BulkError(f"{path} can't be read; restore it or choose another --out") from exc
        if known.identity != job.identity:
            raise BulkError(
                "the folder holds answers of another model file, of other options or of an "
                "earlier release; choose another --out"
            )
        return known

    def remaining(self, items: Iterable[Item], identity: str) -> Remaining:
        """Compare the files of a source with the rows that count.

        A part whose file is not as it was written no longer counts. Every other row stays until
        the row that replaces it is committed, and so do rows of files that left the source.
        """
        waiting = {item.path: item for item in items}
        seen: set[str] = set()
        renewed: list[ArchivePart] = []
        num_kept = 0
        counted = self.entries
        for entry in reversed(counted):
            table = self._table(entry)
            paths = [] if table is None else table["path"].to_pylist()
            if table is None or not seen.isdisjoint(paths):  # two rows: a manifest was damaged
                self._entries.pop(entry.part)
                continue
            seen.update(paths)
            stale, num_not_found = _compare(table, waiting)
            num_kept += num_not_found
            if stale:
                renewed.append(renew(entry.part, stale, identity))
        if counted != self.entries:
            self._rewrite()
        return Remaining(list(waiting.values()), renewed, num_kept)

    def commit(self, entry: Entry) -> None:
        """Let a part count from now on; it is on the disk when this returns."""
        with using_out(), (self._folder / MANIFEST).open("ab") as file:
            file.write(_line(entry))
            file.flush()
            os.fsync(file.fileno())
        self._entries.pop(entry.replaces, None)
        self._entries[entry.part] = entry

    def remove_strays(self, wanted: Iterable[ArchivePart] = ()) -> None:
        """Remove our files that do not count, and what killed workers left behind.

        Args:
            wanted: parts that this run is to make; what exists of them is used.
        """
        kept = {entry.file_name for entry in self.entries}
        for part in wanted:
            kept |= {part.file_name, part.journal_name}
        with using_out():
            for path in self._folder.iterdir():
                if path.name not in kept and _OURS.fullmatch(path.name):
                    path.unlink(missing_ok=True)

    def _table(self, entry: Entry) -> pa.Table | None:
        """Return a part's rows, or None if its file is not as it was written."""
        with suppress(SpoiltPart):
            table = read_table(self._folder / entry.file_name)
            return table if table.num_rows == entry.rows else None
        return None

    def _rewrite(self) -> None:
        with written_whole(self._folder / MANIFEST) as file:
            file.writelines(map(_line, self.entries))


def _compare(table: pa.Table, waiting: dict[str, Item]) -> tuple[list[Item], int]:
    """Take a part's files out of `waiting`.

    Returns:
        The files that are to be scored again, and how many answers stay because the source can
        say nothing of the file.
    """
    stale: list[Item] = []
    num_not_found = 0
    columns = table.select(["path", "fingerprint", "problem"]).to_pydict().values()
    for path, fingerprint, problem in zip(*columns, strict=True):
        item = waiting.pop(path, None)
        if item is None:
            continue
        if problem == UNREADABLE or item.fingerprint not in (fingerprint, NOT_FOUND):
            stale.append(item)
        elif item.fingerprint == NOT_FOUND:
            num_not_found += 1
    return stale, num_not_found


def read_manifest(folder: Path) -> bytes:
    """Return the manifest's content, empty if there is none yet."""
    path = folder / MANIFEST
    with using_out():
        return path.read_bytes() if path.exists() else b""


def parse_entries(content: bytes) -> tuple[dict[str, Entry], bool]:
    """Return the parts that count by name, and whether every line could be read.

    A last line without its end is one that is being written, or that a crash cut off.
    """
    entries: dict[str, Entry] = {}
    is_whole = True
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        try:
            entry = Entry.model_validate_json(line)
        except ValidationError:
            is_whole = False
            continue
        entries.pop(entry.replaces, None)
        entries[entry.part] = entry
    return entries, is_whole


def _line(entry: Entry) -> bytes:
    return entry.model_dump_json().encode() + b"\n"


@contextmanager
def hold(folder: Path) -> Iterator[ArchiveManifest]:
    """Hold a folder alone; the system lets go of it if this process dies.

    Raises:
        BulkError: another run writes here, or the folder can't be used.
    """
    with using_out():
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "_lock").open("ab")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise BulkError("another run writes into this folder; nothing was done") from exc
        except OSError as exc:
            raise BulkError(f"--out can't be locked: {exc.strerror}; NFS needs version 4") from exc
        yield ArchiveManifest(folder)
