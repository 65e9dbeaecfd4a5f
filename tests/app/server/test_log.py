"""The log never stops the service: a reader that stalls loses lines, and they are counted."""

import io
import json
import logging
import os
import threading
from collections.abc import Iterator

import pytest

from app.server.log import QueuedHandler, RequestIdFilter, SafeJsonFormatter


class Stalling(io.StringIO):
    """A stream whose writes wait until they may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.may_write = threading.Event()
        self.is_writing = threading.Event()

    def write(self, text: str, /) -> int:
        self.is_writing.set()
        self.may_write.wait(20)
        return super().write(text)


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    logger = logging.Logger("test")  # noqa: LOG001 -- apart from all others
    yield logger
    for handler in logger.handlers:
        handler.close()


def attach(log: logging.Logger, stream: io.TextIOBase, max_lines: int = 3) -> QueuedHandler:
    handler = QueuedHandler(stream, max_lines=max_lines)  # type: ignore[arg-type]
    handler.addFilter(RequestIdFilter())
    handler.setFormatter(SafeJsonFormatter(["message", "request_id"]))
    log.addHandler(handler)
    return handler


def test_lines_that_find_the_queue_full_are_dropped_and_counted(log: logging.Logger) -> None:
    stream = Stalling()
    handler = attach(log, stream)
    counted: list[None] = []
    handler.on_drop = lambda: counted.append(None)
    log.info("first")
    assert stream.is_writing.wait(20)
    for number in range(10):
        log.info("line %d", number)

    assert handler.num_dropped == len(counted) == 7
    stream.may_write.set()
    handler.close()
    messages = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
    assert messages[:4] == ["first", "line 0", "line 1", "line 2"]


def test_a_pipe_that_nobody_reads_stops_nobody(log: logging.Logger) -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        handler = attach(log, stream, max_lines=10)
        for _ in range(3000):
            log.info("x" * 100)
        assert handler.num_dropped > 1000
        handler.close()  # waits for a limited time only
        os.close(reader)


def test_a_stream_that_is_closed_stops_nobody_and_is_silent(
    log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as stream:
        handler = attach(log, stream)
        log.info("lost")
        handler.close()
        assert handler.num_dropped == 1
        with pytest.raises(BrokenPipeError):
            stream.close()

    assert capsys.readouterr().err == ""


def test_a_line_is_never_longer_than_a_limit(log: logging.Logger) -> None:
    stream = io.StringIO()
    attach(log, stream).setFormatter(None)
    log.info("x" * 10**6)
    log.handlers[0].close()

    assert len(stream.getvalue()) == 16_385
