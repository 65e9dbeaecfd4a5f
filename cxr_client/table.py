"""Answers as lines of a CSV file, which is also the memory of what is done."""

import csv
import io
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from cxr_client.answers import PredictionDict
from cxr_client.client import ServiceProblem

COLUMNS = (
    "file", "code", "detail", "finding", "probability", "label", "threshold", "operating_point",
    "tta_spread",
    "novelty", "is_novel", "warnings", "age_years", "sex", "view_position",
    "model", "version", "sha256", "request_id", "asked",
)  # fmt: skip
"""`code` is empty if there is an answer, else the problem's; `asked` is the question that the
whole table answers."""


UNREADABLE = "unreadable"
"""The code of an entry that can't be read here, so that the service never saw it."""


class TableError(Exception):
    """The file can't be continued; the message says why."""


class Table:
    """A CSV file that grows by a line for each file, at once; a context manager that closes it.

    Opened again, it knows the files that it has (`done`), so that an interrupted
    folder goes on where it was.  A line that was cut off by a crash is dropped.
    """

    def __init__(self, path: Path | None, asked: str) -> None:
        """Open or make a table; None writes to standard output and remembers nothing. Raises
        `TableError`.
        """
        self._asked = asked
        self.done: frozenset[str] = frozenset()
        self._unreadable: frozenset[str] = frozenset()
        if path is None:
            self._file: TextIO = sys.stdout
        else:
            self.done, self._unreadable = _read_done(path, asked)
            self._file = path.open("a", newline="", encoding="utf-8", errors="surrogateescape")
        self._writer = csv.DictWriter(self._file, COLUMNS, lineterminator="\n")
        if path is None or not path.stat().st_size:
            self._writer.writeheader()
            self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not sys.stdout:
            self._file.close()

    def add(self, file: str, answer: PredictionDict | ServiceProblem) -> None:
        """Write one file's line."""
        cells = (
            _problem_cells(answer) if isinstance(answer, ServiceProblem) else _answer_cells(answer)
        )
        row = {"file": file, "asked": self._asked, **cells}
        self._writer.writerow({name: _tame(value) for name, value in row.items()})
        self._file.flush()

    def add_unreadable(self, file: str, reason: str) -> None:
        """Write the line of an entry that can't be read, unless it has one already."""
        if file not in self._unreadable:
            cells = {"file": file, "asked": self._asked, "code": UNREADABLE, "detail": reason}
            self._writer.writerow({name: _tame(value) for name, value in cells.items()})
            self._file.flush()


def _answer_cells(answer: PredictionDict) -> Mapping[str, Any]:
    metadata, tta = answer["metadata"], answer["tta"]
    return {
        **{
            name: answer[name]
            for name in (
                "finding",
                "probability",
                "label",
                "threshold",
                "operating_point",
                "request_id",
            )
        },
        **{name: metadata[name] for name in ("age_years", "sex", "view_position")},
        "tta_spread": tta["spread"] if tta else None,
        "novelty": answer["novelty"]["score"],
        "is_novel": answer["novelty"]["is_novel"],
        "warnings": " ".join(warning["code"] for warning in answer["warnings"]),
        "model": answer["model"]["name"],
        "version": answer["model"]["version"],
        "sha256": answer["model"]["sha256"],
    }


def _problem_cells(problem: ServiceProblem) -> Mapping[str, Any]:
    return {"code": problem.code, "detail": problem.detail, "request_id": problem.request_id}


_FORMULA = re.compile("['=+@\t\r\n\uff1d\uff0b\uff20-]")
"""First letters of a text that a spreadsheet runs, and the quote that is put before such a text."""


def _tame(value: object) -> object:
    """Put a quote before a text that a spreadsheet would run as a formula (CWE-1236)."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def _untame(text: str) -> str:
    return text.removeprefix("'")


def _read_done(path: Path, asked: str) -> tuple[frozenset[str], frozenset[str]]:
    """List the files that a table has, and those that could not be read.

    What a crash left of the last line is cut off first.
    """
    done: set[str] = set()
    unreadable: set[str] = set()
    if not path.exists():
        return frozenset(), frozenset()
    _cut_torn_line(path)
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames is None:
            return frozenset(), frozenset()
        if tuple(reader.fieldnames) != COLUMNS:
            raise TableError(f"{path} is no table of cxr-serve, or one of another version.")
        for row in reader:
            if _untame(row["asked"]) != asked:
                raise TableError(
                    f"{path} holds answers to another question ({row['asked'] or 'defaults'}); "
                    f"name another file."
                )
            is_unreadable = row["code"] == UNREADABLE
            (unreadable if is_unreadable else done).add(_untame(row["file"]))
    return frozenset(done), frozenset(unreadable - done)


def _cut_torn_line(path: Path) -> None:
    """Shorten a file to its last whole line."""
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - io.DEFAULT_BUFFER_SIZE)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                file.truncate(start + newline + 1)
                return
            end = start
        file.truncate(0)
