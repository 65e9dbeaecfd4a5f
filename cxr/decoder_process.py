"""The process in which a codec runs that must be stoppable, and what is said over its pipe.

    parent to worker    preparation (JSON), file (bytes)
    worker to parent    verdict (JSON), then image and preview (bytes) on success

Nothing is pickled: a file that takes over the codec can send no code to the service.
"""

import logging
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from cxr.decode import quiet_libraries
from cxr.decode_and_preprocess import Preparation, Prepared, prepare
from cxr.errors import CorruptImage, ImageError
from cxr.radiograph import Metadata, Processing
from cxr.warning_codes import ImageWarning

READY = b"ready"

NICENESS = 5
"""Niceness of a worker: serving goes first, and a worker still gets a quarter of a busy core."""


@dataclass(frozen=True, slots=True)
class DecodeOutcome:
    """The answer to one file: its facts, or the public name of what is wrong with it."""

    code: str | None = None
    detail: str = ""
    image_shape: tuple[int, int] = (0, 0)
    preview_shape: tuple[int, int] = (0, 0)
    metadata: Metadata | None = None
    processing: Processing | None = None
    warnings: tuple[ImageWarning, ...] = ()
    decode_s: float = 0.0
    preprocess_s: float = 0.0


def main(pipe: Connection, max_memory_bytes: int) -> None:
    """Answer files until the parent closes the pipe or is gone; the target of each worker
    process.
    """
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C goes to the whole group; the parent decides
    logging.disable()  # a codec's words may quote the file; the parent logs what matters
    quiet_libraries()
    os.nice(NICENESS)
    _limit_memory(max_memory_bytes)
    with suppress(EOFError, ConnectionError):  # a parent that was killed leaves answers unread
        pipe.send_bytes(READY)
        while True:
            preparation = _PREPARATION.validate_json(pipe.recv_bytes())
            data = pipe.recv_bytes()
            _answer(pipe, data, preparation)


def send_file(pipe: Connection, data: bytes, preparation: Preparation) -> None:
    """Hand a file to the worker; raises `OSError` if the worker has ended."""
    pipe.send_bytes(_PREPARATION.dump_json(preparation))
    pipe.send_bytes(data)


def receive_prepared(pipe: Connection, preparation: Preparation) -> Prepared:
    """Take the worker's answer, and only what a sound worker sends.

    Raises:
        ImageError: what is wrong with the file.
        OSError, EOFError, ValueError: the worker is gone, or not sound.
    """
    outcome = _VERDICT.validate_json(pipe.recv_bytes(_MAX_VERDICT_BYTES))
    if outcome.code is not None:
        raise _ERRORS.get(outcome.code, CorruptImage)(outcome.detail)
    if (
        outcome.metadata is None
        or outcome.processing is None
        or set(outcome.image_shape) != {preparation.spec.size}
    ):
        raise ValueError("the worker's verdict is not whole")
    image_HW = _receive_array(pipe, outcome.image_shape, preparation.spec.size)
    preview_HW = _receive_array(pipe, outcome.preview_shape, preparation.preview_side or 0)
    return Prepared(
        image_HW=image_HW,
        preview_HW=preview_HW if preview_HW.size else None,
        metadata=outcome.metadata,
        processing=outcome.processing,
        warnings=outcome.warnings,
        decode_s=outcome.decode_s,
        preprocess_s=outcome.preprocess_s,
    )


_PREPARATION = TypeAdapter(Preparation)
_VERDICT = TypeAdapter(DecodeOutcome)
_ERRORS: dict[str, type[ImageError]] = {kind.code: kind for kind in ImageError.__subclasses__()}
_MAX_VERDICT_BYTES = 2**16
_NO_PREVIEW = np.zeros((0, 0), np.uint8)


def _answer(pipe: Connection, data: bytes, preparation: Preparation) -> None:
    try:
        prepared = prepare(data, preparation)
    except ImageError as error:
        pipe.send_bytes(_VERDICT.dump_json(DecodeOutcome(code=error.code, detail=str(error))))
        return
    preview_HW = _NO_PREVIEW if prepared.preview_HW is None else prepared.preview_HW
    pipe.send_bytes(_VERDICT.dump_json(_verdict(prepared, preview_HW)))
    pipe.send_bytes(prepared.image_HW.tobytes())
    pipe.send_bytes(preview_HW.tobytes())


def _verdict(prepared: Prepared, preview_HW: NDArray[np.uint8]) -> DecodeOutcome:
    rows, columns = prepared.image_HW.shape
    preview_rows, preview_columns = preview_HW.shape
    return DecodeOutcome(
        image_shape=(rows, columns),
        preview_shape=(preview_rows, preview_columns),
        metadata=prepared.metadata,
        processing=prepared.processing,
        warnings=prepared.warnings,
        decode_s=prepared.decode_s,
        preprocess_s=prepared.preprocess_s,
    )


def _receive_array(pipe: Connection, shape: tuple[int, int], max_side: int) -> NDArray[np.uint8]:
    return np.frombuffer(pipe.recv_bytes(max(1, max_side**2)), np.uint8).reshape(shape)


def _limit_memory(max_memory_bytes: int) -> None:
    """Bound the address space to what the idle process has, and `max_memory_bytes` more for one
    file.

    Other platforms than Linux bound only time and pixels.
    """
    if sys.platform != "linux":
        return
    import resource  # noqa: PLC0415 -- not every platform has it

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + max_memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
