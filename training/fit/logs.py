"""Logs of a run directory: JSON lines, and curves for `tensorboard --logdir RUN`.

Both are appended to, so that a resumed training continues them.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tensorboardX import SummaryWriter


class JsonLinesLog:
    """Append events to a .jsonl file; a context manager that closes it.

    If training resumes after `last_epoch`, lines of later epochs are removed, because those epochs
    are trained again.
    """

    def __init__(self, path: Path, *, last_epoch: int | None = None) -> None:
        if last_epoch is not None and path.is_file():
            _forget_after(path, last_epoch)
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, event: str, **facts: Any) -> None:
        """Write one line and flush it: the event, its time, and its values."""
        line = {"event": event, "time": datetime.now(UTC).isoformat(timespec="seconds"), **facts}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


class TensorBoardLog:
    """Write scalars over the epochs; a context manager that closes its file."""

    def __init__(self, folder: Path, *, first_epoch: int) -> None:
        """Write into `folder`; what an interrupted training wrote from `first_epoch` on is
        hidden.
        """
        self._writer = SummaryWriter(str(folder), purge_step=first_epoch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

    def write(self, epoch: int, **figures: float | None) -> None:
        """Write the figures of an epoch that there are, and let them be seen at once."""
        for name, figure in figures.items():
            if figure is not None:
                self._writer.add_scalar(name, figure, epoch)
        self._writer.flush()


def _forget_after(path: Path, epoch: int) -> None:
    """Take the lines of later epochs out, and one that was cut off while it was written."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [
        line for line in lines if line.endswith("\n") and json.loads(line).get("epoch", 0) <= epoch
    ]
    if kept != lines:
        draft = path.with_suffix(".draft")
        draft.write_text("".join(kept), encoding="utf-8")
        draft.replace(path)
