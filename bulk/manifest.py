"""Which parts of a run are whole: the one place that says what counts.

    OUT/model=<name>/version=<number>/
        part-<hash>.parquet      answers
        _job.json                what all parts have in common
        _manifest.jsonl          one line for each part that counts, or that no longer does
        _lock                    held by the one run that writes here

Names with an underscore or a dot are passed over by readers of Parquet folders.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from bulk.errors import BulkError
from bulk.score import UNREADABLE


class JobFile(BaseModel):
    """`_job.json`: what all parts of a folder have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    identity: str
    part_files: int


class Entry(BaseModel):
    """One line of the manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: Literal["whole", "retired"] = "whole"
    part: str
    rows: int = 0
    num_problems: int = 0
    num_bytes: int = 0
    """Of the Parquet file."""
    seconds: float = 0.0
    """One core was busy with the part for so long."""


class ArchiveManifest:
    """The manifest of a folder that this run holds alone."""

    def __init__(self, folder: Path) -> None:
        """Read the manifest."""
        self._folder = folder
        self._path = folder / "_manifest.jsonl"
        self._entries = self._read()

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
            _write_whole(path, job.model_dump_json().encode())
            return job
        except ValidationError as exc:
            raise BulkError(f"{path} can't be read") from exc
        if known.identity != job.identity:
            raise BulkError(
                "the folder holds answers of another model file or of other options; "
                "choose another --out"
            )
        return known

    def done(self, fingerprints: Mapping[str, str]) -> frozenset[str]:
        """Return the paths whose rows count.

        A part is retired, and its files are scored again, if it is not there as it was written, if
        one of its files has changed since, or if the source did not give one of them.

        Args:
            fingerprints: of every file that the source has now, by path.
        """
        found: set[str] = set()
        for entry in self.entries:
            known = self._fingerprints(entry)
            if known is None or any(
                fingerprints.get(path, value) != value for path, value in known.items()
            ):
                self.retire(entry.part)
            else:
                found |= known.keys()
        return frozenset(found)

    def commit(self, entry: Entry) -> None:
        """Let a part count from now on; it is on the disk when this returns."""
        self._append(entry)
        self._entries[entry.part] = entry

    def retire(self, part: str) -> None:
        """Let a part no longer count, and remove its file."""
        self._append(Entry(state="retired", part=part))
        self._entries.pop(part, None)
        (self._folder / f"part-{part}.parquet").unlink(missing_ok=True)

    def remove_strays(self) -> None:
        """Remove parts that do not count, and what killed workers left behind."""
        for path in self._folder.glob("part-*.parquet"):
            if path.stem.removeprefix("part-") not in self._entries:
                path.unlink()
        for path in (*self._folder.glob(".part-*"), *self._folder.glob(".begun-*")):
            path.unlink(missing_ok=True)

    def _fingerprints(self, entry: Entry) -> dict[str, str] | None:
        """Return the fingerprints of a part's files by path, or None if it must be made again."""
        path = self._folder / f"part-{entry.part}.parquet"
        if not path.is_file() or path.stat().st_size != entry.num_bytes:
            return None
        columns = pq.read_table(path, columns=["path", "fingerprint", "problem"]).to_pydict()
        if UNREADABLE in columns["problem"]:
            return None
        return dict(zip(columns["path"], columns["fingerprint"], strict=True))

    def _read(self) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        for entry in map(Entry.model_validate_json, lines):
            if entry.state == "retired":
                entries.pop(entry.part, None)
            else:
                entries[entry.part] = entry
        return entries

    def _append(self, entry: Entry) -> None:
        with self._path.open("ab") as file:
            file.write(entry.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def hold(folder: Path) -> Iterator[ArchiveManifest]:
    """Hold a folder alone; the system lets go of it if this process dies.

    Raises:
        BulkError: another run writes here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "_lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise BulkError("another run writes into this folder; nothing was done") from exc
        _drop_torn_line(folder / "_manifest.jsonl")
        yield ArchiveManifest(folder)


def _drop_torn_line(path: Path) -> None:
    """Cut a line off that a crash left without its end: the next line must begin a line."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        _write_whole(path, whole)


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place, and put it there at once."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(content)
    draft.replace(path)
