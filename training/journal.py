"""Logs of a RUN: one JSON object a line, appended, so that a resumed training continues the file."""

import json
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Journal:
    """Append events to a .jsonl file; a context manager that closes it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def write(self, event: str, **facts: Any) -> None:
        """Write one line at once: the event, when, and its facts."""
        line = {"event": event, "time": datetime.now(UTC).isoformat(timespec="seconds"), **facts}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
