"""What a process of the service gets from its parent: its number, a socket, a heartbeat pipe."""

import asyncio
import logging
import os
import shutil
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from app.server.end_process import end_process
from app.settings import Settings

logger = logging.getLogger("cxr.supervisor")

SOUND = b"."
FAULTY = b"!"
"""What a heartbeat says of the worker that sends it."""

_HEARTBEAT_SECONDS = 1.0

METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Names the folder in which all workers count."""


@dataclass(frozen=True, slots=True)
class WorkerSlot:
    """What the parent gives to a worker process, or to the device process."""

    number: int
    listener: socket.socket
    """The service's port; for the device process the socket to which workers connect."""
    heartbeat: Connection
    replaces: bool
    """Whether another process had the slot before."""
    device_address: Path | None = None
    """For a worker: the path of the device process's socket, if there is one."""

    def take(self) -> None:
        """Count metrics under the slot's number instead of a process id.

        Call it before `app.telemetry` is imported. A replacement continues its predecessor's
        files, so counters never fall and files never pile up.
        """
        from prometheus_client import values  # noqa: PLC0415

        values.ValueClass = values.MultiProcessValue(lambda: self.number)  # type: ignore[no-untyped-call]
        os.setpgrp()  # Ctrl-C at a terminal must reach the parent alone

    async def send_heartbeats(self, is_sound: Callable[[], bool]) -> None:
        """Send heartbeats from the event loop for ever; drain if the parent is gone."""
        os.set_blocking(self.heartbeat.fileno(), False)
        while True:
            try:
                os.write(self.heartbeat.fileno(), SOUND if is_sound() else FAULTY)
            except BlockingIOError:  # a slow parent must not stop the worker
                pass
            except BrokenPipeError:
                logger.critical("the parent process is gone")
                shutil.rmtree(os.environ.get(METRICS_VARIABLE, ""), ignore_errors=True)
                signal.raise_signal(signal.SIGTERM)
                return
            await asyncio.sleep(_HEARTBEAT_SECONDS)


def work(settings: Settings, worker_slot: WorkerSlot) -> None:
    """Serve as one of several worker processes; the target of each."""
    worker_slot.take()
    from app.server.process import serve_as_worker  # noqa: PLC0415 -- see `take`

    end_process(serve_as_worker(settings, worker_slot))


def run_graphs(settings: Settings, worker_slot: WorkerSlot) -> None:
    """Run the graphs of all workers; the target of the device process."""
    worker_slot.take()
    from app.server.device_process import run_device_process  # noqa: PLC0415 -- see `take`

    end_process(run_device_process(settings, worker_slot))
