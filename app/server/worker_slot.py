"""What a worker process gets from its parent: a number, a listening socket, a heartbeat pipe."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

logger = logging.getLogger("cxr.supervisor")

SOUND = b"."
FAULTY = b"!"
"""What a heartbeat says of the worker that sends it."""

_HEARTBEAT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class WorkerSlot:
    """A worker's place among the workers: what the parent hands to its process."""

    number: int
    listener: socket.socket
    heartbeat: Connection
    replaces: bool
    """Whether another worker had the place before."""

    def take(self) -> None:
        """Count under the place's number instead of a process id; before `app.telemetry` is
        imported.

        A replacement goes on with its predecessor's files, so that counters never fall
        and files never pile up, however often workers die.
        """
        from prometheus_client import values  # noqa: PLC0415

        values.ValueClass = values.MultiProcessValue(lambda: self.number)  # type: ignore[no-untyped-call]
        os.setpgrp()  # Ctrl-C at a terminal reaches the parent alone, which speaks for all

    async def send_heartbeats(self, is_sound: Callable[[], bool]) -> None:
        """Tell the parent from the event loop that it turns; goes down as on SIGTERM when there is
        no parent any more.
        """
        os.set_blocking(self.heartbeat.fileno(), False)
        while True:
            try:
                os.write(self.heartbeat.fileno(), SOUND if is_sound() else FAULTY)
            except BlockingIOError:  # the parent is slow to read: that must not stop the worker
                pass
            except BrokenPipeError:
                logger.critical("the parent process is gone")
                signal.raise_signal(signal.SIGTERM)
                return
            await asyncio.sleep(_HEARTBEAT_SECONDS)
