"""The files of a source, and the parts into which they are divided."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

NOT_FOUND = "not found"
"""The fingerprint of a file about which the source can say nothing now."""


@dataclass(frozen=True, slots=True, order=True)
class Item:
    """One file of a source."""

    path: str
    """The file's name in the source: a path, a URL, or `study/series/instance` by DICOMweb."""
    fingerprint: str
    """Changes if the file does; the source makes it without reading the file."""
    num_bytes: int = 0
    """0 if the source does not know."""


@dataclass(frozen=True, slots=True)
class ArchivePart:
    """The files whose answers make one Parquet file."""

    name: str
    items: tuple[Item, ...]
    replaces: str = ""
    """The part that ends if this one counts; its other rows are taken over."""

    @property
    def file_name(self) -> str:
        """Return the name of the part's Parquet file."""
        return part_file_name(self.name)

    @property
    def journal_name(self) -> str:
        """Return the name of the file that says which of the part's files is at work."""
        return f".begun-{self.name}"


def part_file_name(name: str) -> str:
    """Return the name of a part's Parquet file."""
    return f"part-{name}.parquet"


def divide(items: Sequence[Item], part_files: int, identity: str) -> Iterator[ArchivePart]:
    """Divide sorted files into parts of `part_files`.

    A part's name is the hash of its files and of the run's identity. So the same files give the
    same parts in every run, and a part that exists already need not be made again.
    """
    for start in range(0, len(items), part_files):
        chunk = tuple(items[start : start + part_files])
        yield ArchivePart(_name(chunk, identity), chunk)


def renew(part: str, items: Sequence[Item], identity: str) -> ArchivePart:
    """Return the part that takes the place of another one, some of whose files are scored again."""
    return ArchivePart(_name(items, f"{identity} {part}"), tuple(items), part)


def sample(items: Sequence[Item], count: int) -> list[Item]:
    """Return `count` files that stand for all: evenly spaced after sorting by size.

    Files of one kind have similar sizes, so each kind is met as often as it occurs.
    """
    if len(items) <= count:
        return list(items)
    by_size = sorted(items, key=lambda item: (item.num_bytes, item.path))
    step = len(by_size) / count
    return [by_size[int((index + 0.5) * step)] for index in range(count)]


def mix(items: Sequence[Item], part_files: int) -> list[Item]:
    """Order files so that each part of `part_files` has small ones and large ones."""
    num_parts = max(1, -(-len(items) // part_files))
    return [item for start in range(num_parts) for item in items[start::num_parts]]


def _name(items: Sequence[Item], identity: str) -> str:
    digest = hashlib.sha256(identity.encode())
    for item in items:
        digest.update(json.dumps([item.path, item.fingerprint]).encode())
    return digest.hexdigest()[:32]
