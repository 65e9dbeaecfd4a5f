"""A process that decodes one file at a time and may be killed over it, and our end of its pipe.

Codecs written in C can take long over a hostile file, and a thread can't be stopped. So files whose
codec is of this kind (`NeedsWorker`) are decoded here.
"""

import multiprocessing
import signal
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from cxr import decoder_process
from cxr.decode_and_preprocess import Preparation, Prepared
from cxr.errors import CorruptImage, DecodeLimit, ImageError

_START_SECONDS = 30.0


class StoppableDecoder:
    """One decoding process. Its methods block, so an event loop calls them in a thread."""

    def __init__(self, max_memory_bytes: int) -> None:
        """Make the process without starting it; one file may take `max_memory_bytes` of memory."""
        context = multiprocessing.get_context("spawn")  # a fork would copy our threads' locks
        self._pipe, self._far_pipe = context.Pipe()
        self._process = context.Process(
            target=decoder_process.main, args=(self._far_pipe, max_memory_bytes), daemon=True
        )
        self._is_unwanted = False
        self._is_late = False

    def __enter__(self) -> Self:
        """Return the decoder itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        self.kill()

    @property
    def process_id(self) -> int:
        """Return the process's number, 0 before it was started."""
        return self._process.pid or 0

    @property
    def sentinel(self) -> int:
        """Return a file descriptor that can be read once the started process is dead."""
        return self._process.sentinel

    @property
    def is_alive(self) -> bool:
        """Tell whether the process lives. One that was killed does not, even if the kernel has not
        ended it yet.
        """
        return not self._is_unwanted and self._process.is_alive()

    def start(self) -> bool:
        """Start, wait until the process has imported its codecs, and tell whether it has."""
        self._process.start()
        self._far_pipe.close()
        if self._is_unwanted:  # the owner closed while the process was being made
            self.kill()
        with suppress(OSError, EOFError):
            if self._pipe.poll(_START_SECONDS) and self._pipe.recv_bytes() == decoder_process.READY:
                return True
        self.kill()
        return False

    def prepare(self, data: bytes, preparation: Preparation, max_seconds: float) -> Prepared:
        """Have one file prepared.

        Raises:
            ImageError: the file is at fault. The process may be dead afterwards.
        """
        watchdog = threading.Timer(max_seconds, self._stop_late)
        watchdog.start()
        try:
            decoder_process.send_file(self._pipe, data, preparation)
            return decoder_process.receive_prepared(self._pipe, preparation)
        except ImageError:
            raise
        except Exception as exc:  # it was killed, it died, or it sent what no sound process sends
            if self._is_late:
                raise DecodeLimit(f"Decoding took more than {max_seconds:g} seconds.") from exc
            raise self._died() from exc
        finally:
            watchdog.cancel()

    def kill(self) -> None:
        """End the process now, whatever it does."""
        self._is_unwanted = True
        if self._process.pid is not None:
            self._process.kill()

    def _stop_late(self) -> None:
        self._is_late = True
        self.kill()

    def _died(self) -> ImageError:
        self.kill()
        self._process.join()
        if self._process.exitcode == -signal.SIGKILL:  # by the kernel, for memory, or by hand
            return DecodeLimit("The decoder was stopped.")
        return CorruptImage("The decoder gave up on the file.")
