"""The log: JSON lines on standard output, written by a thread of their own.

Whoever reads the log may stall, and a write to a full pipe waits. So lines go through a queue of
limited length. Lines that find it full are dropped and counted.
"""

import logging
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any, TextIO

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from app.telemetry import current_trace

_MAX_LINES = 10_000
"""Lines that may wait to be written; some five megabytes."""

_MAX_CHARACTERS = 16_384
"""Longest line."""

_GATHER_S = 0.05
"""Seconds for which lines are gathered before they are written."""

_CLOSE_S = 1.0
"""Seconds for which the end of the process waits for a log that is not read."""


class RequestIdFilter(logging.Filter):
    """Add the ids of the current request to each record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the record."""
        trace = current_trace()
        record.request_id = trace.request_id if trace else ""
        if trace and trace.trace_id:
            record.trace_id = trace.trace_id
        return True


class SafeJsonFormatter(JsonFormatter):
    """Write one JSON object a line; of an exception only its class and its stack.

    Messages of foreign exceptions may quote a tag's value, so they are left out.
    """

    def formatException(self, ei: Any) -> str:
        """Return the end of an exception's stack and its class, without its message."""
        kind, _, stack = ei
        lines = "".join(traceback.format_tb(stack))[-_MAX_CHARACTERS // 2 :]
        return f"{lines}{kind.__name__ if kind else ''}"


class QueuedHandler(logging.Handler):
    """Hand records to a thread that formats and writes them; never wait for it.

    The thread takes up what a moment has brought, all at once. If it woke for each line, it would
    ask for the interpreter between two steps of every answer.
    """

    def __init__(self, stream: TextIO, *, max_lines: int = _MAX_LINES) -> None:
        """Take the stream that is written to, and how many lines may wait for it."""
        super().__init__()
        self.num_dropped = 0
        self.on_drop: Callable[[], object] = lambda: None
        """Called for each line that is dropped."""
        self._stream = stream
        self._max_lines = max_lines
        self._records = deque[logging.LogRecord]()
        self._has_records = threading.Event()
        self._is_ending = threading.Event()
        self._num_reported = 0
        self._thread = threading.Thread(target=self._write_on, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one record, or drop it if the queue is full."""
        if len(self._records) >= self._max_lines:
            self._drop()
            return
        self._records.append(record)
        if not self._has_records.is_set():
            self._has_records.set()

    def close(self) -> None:
        """Write what waits, for a limited time."""
        self._is_ending.set()
        self._has_records.set()
        self._thread.join(_CLOSE_S)
        super().close()

    def _drop(self) -> None:
        self.num_dropped += 1
        self.on_drop()

    def _write_on(self) -> None:
        while self._records or not self._is_ending.is_set():
            self._has_records.wait()
            self._is_ending.wait(_GATHER_S)
            self._has_records.clear()
            self._write([self._records.popleft() for _ in range(len(self._records))])

    def _write(self, records: list[logging.LogRecord]) -> None:
        """Write records as lines, and say how many were dropped since this was said last."""
        text = "".join(map(self._line, records))
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # nobody reads any more, or the stream is closed
            for _ in records:
                self._drop()
            return
        if self.num_dropped > self._num_reported and not self._records:
            num_new = self.num_dropped - self._num_reported
            self._num_reported = self.num_dropped
            logging.getLogger("cxr.log").warning("lines were dropped", extra={"count": num_new})

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record)[:_MAX_CHARACTERS] + "\n"
        except Exception:  # a record that can't be written must not stop what it reports
            self._drop()
            return ""


def configure_logging(level: str) -> QueuedHandler:
    """Send every log line to standard output as JSON; called once, by `python -m app`."""
    _leave_out_what_no_line_tells()
    handler = QueuedHandler(sys.stdout)
    handler.addFilter(RequestIdFilter())
    handler.setFormatter(
        SafeJsonFormatter(
            ["levelname", "name", "message", "request_id"],
            rename_fields={"levelname": "level", "name": "logger"},
            reserved_attrs=[*RESERVED_ATTRS, "color_message"],  # uvicorn says everything twice
            timestamp=True,
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it quotes bytes of the body
    # highdicom names the instance that it copies from, which belongs in no log.
    logging.getLogger("highdicom").setLevel(logging.CRITICAL)
    return handler


def _leave_out_what_no_line_tells() -> None:
    """Let records be made without their caller, thread and process (logging, "Optimization")."""
    logging._srcfile = None  # noqa: SLF001 -- the documented way
    logging.logThreads = False
    logging.logProcesses = False
    logging.logMultiprocessing = False
