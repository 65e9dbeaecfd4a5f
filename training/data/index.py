"""The index: one row an image, whatever layout it came from."""

import csv
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import zip_longest
from pathlib import Path
from typing import Literal, TextIO

import numpy as np
from numpy.typing import NDArray

from cxr.radiograph import Sex, View
from training.errors import TrainingError

Label = Literal[0, 1]

MAX_HEADER_CHARACTERS = 65_536


class DataError(TrainingError):
    """A data folder is not what it should be; the message says what was expected."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexRow:
    """One image: its id, path, person and label.

    `path` is relative to its data folder.  Images that share a `person_group` never lie in
    different folds.  Age, sex and view come from the file or from a table. They are None until it
    is decoded, or if neither states them.
    """

    image_id: str
    path: str
    sha256: str
    person_group: str
    label: Label
    age_years: float | None = None
    sex: Sex | None = None
    view_position: View | None = None
    folder: int = 0
    """Which of several data folders it lies in, counted from 0."""
    source: str = ""
    """Where it came from; the layout's name if no table says so."""
    target: float | None = None
    """How likely the finding is, if the label itself is in doubt; else None."""
    weight: float = 1.0
    """Of the image in the loss."""
    is_doubtful: bool = False
    """Whether the label was read out of a report and not off the image."""
    other_findings: str = ""
    """What else its report names, with `|` between; empty if nobody knows."""


@dataclass(frozen=True, slots=True)
class DataIndex:
    """All images of a data folder, sorted by path."""

    name: str
    """Its layout, `siim` or `class-folders`; in a run directory, what the recipe calls the data."""
    rows: tuple[IndexRow, ...]
    missing: tuple[str, ...] = ()
    """Ids that a table lists and that have no file."""
    unlisted: tuple[str, ...] = ()
    """Paths of files that have no label; they take no part."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def label_N(self) -> NDArray[np.int64]:
        """Labels; 1 if the finding is present."""
        return np.array([row.label for row in self.rows], dtype=np.int64)

    @property
    def person_groups(self) -> int:
        """How many groups of images there are that may share a person."""
        return len({row.person_group for row in self.rows})

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the sorted pairs of an image's SHA-256 and its label: the data's identity,
        paths aside.
        """
        pairs = sorted(f"{row.sha256} {row.label}\n" for row in self.rows)
        return hashlib.sha256("".join(pairs).encode()).hexdigest()

    def subset(self, keep: Iterable[int]) -> "DataIndex":
        """Return the index of some rows, by position."""
        return replace(self, rows=tuple(self.rows[i] for i in keep))

    def write_csv(self, path: Path) -> None:
        """Write index.csv; what is None stays empty."""
        names = [item.name for item in fields(IndexRow)]
        table = [[_cell(getattr(row, name)) for name in names] for row in self.rows]
        write_table(path, names, table)

    @classmethod
    def read_csv(cls, path: Path, name: str) -> "DataIndex":
        """Read index.csv; raises `DataError`."""
        try:
            return cls(name, tuple(_row(line) for line in read_table(path)))
        except (KeyError, ValueError) as exc:
            raise DataError(f"{path} is no index: {exc}") from exc


def join_groups(
    rows: Sequence[IndexRow], groups: Mapping[str, str] | None = None
) -> tuple[IndexRow, ...]:
    """Return groups that belong together one name.

    Groups that share a file, byte for byte, do: the same picture is the same person.  So do those
    that `groups` (image id -> person group) puts together, with those already called so.  It joins
    and never divides, so it can't open a leak.
    """
    root: dict[str, str] = {}

    def find(group: str) -> str:
        while root.setdefault(group, group) != group:
            group = root[group]
        return group

    seen: dict[str, str] = {}
    for row in rows:
        for known in (
            seen.setdefault(row.sha256, row.person_group),
            (groups or {}).get(row.image_id) or row.person_group,
        ):
            one, other = find(row.person_group), find(known)
            root[max(one, other)] = min(one, other)
    return tuple(replace(row, person_group=find(row.person_group)) for row in rows)


def write_table(path: Path, names: Sequence[str], table: Iterable[Sequence[str]]) -> None:
    """Write a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(table)


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a CSV file into one dictionary a row. Spaces around names and values are removed; short
    rows are filled up.

    Raise `DataError` if the file is not UTF-8 text.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = _reader(file)
            names = [name.strip() for name in next(reader, [])]
            return [
                dict(
                    zip_longest(names, (cell.strip() for cell in line[: len(names)]), fillvalue="")
                )
                for line in reader
                if line
            ]
    except (UnicodeDecodeError, csv.Error) as exc:
        raise DataError(f"{path} is no CSV file in UTF-8 ({exc}); save it as one") from exc


def read_header(path: Path) -> list[str]:
    """Return the names of a CSV file's columns, [] if it is none."""
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        try:
            return [name.strip() for name in next(_reader(file), [])]
        except csv.Error:
            return []


def _reader(file: TextIO) -> Iterator[list[str]]:
    """Read with the separator that the first line has: Excel writes semicolons in many countries.

    Values may be in quotes, as R and Excel write them, and blanks may stand before the quotes.
    """
    first = file.readline(MAX_HEADER_CHARACTERS)
    file.seek(0)
    separator = next((mark for mark in ",;\t" if mark in first), ",")
    return csv.reader(file, delimiter=separator, skipinitialspace=True)


def _cell(value: str | float | None) -> str:
    return "" if value is None else str(value)


def _row(line: dict[str, str]) -> IndexRow:
    return IndexRow(
        image_id=line["image_id"],
        path=line["path"],
        sha256=line["sha256"],
        person_group=line["person_group"],
        label=1 if line["label"] == "1" else 0,
        age_years=float(line["age_years"]) if line["age_years"] else None,
        sex=line["sex"] or None,  # type: ignore[arg-type]  # written by write_csv
        view_position=line["view_position"] or None,  # type: ignore[arg-type]
        folder=int(line.get("folder") or 0),  # an index of version 0.2 has none of these
        source=line.get("source", ""),
        target=float(line["target"]) if line.get("target") else None,
        weight=float(line.get("weight") or 1.0),
        is_doubtful=line.get("is_doubtful") == str(True),
        other_findings=line.get("other_findings", ""),
    )
