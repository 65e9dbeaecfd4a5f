"""The folder that a parent and its processes share: metrics, and the device process's socket.

Only the service's own user can read it.
"""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.server.worker_slot import METRICS_VARIABLE

_BACKLOG = 256


@contextmanager
def private_folder() -> Iterator[Path]:
    """Yield a folder for the workers' metrics, and set it in the environment meanwhile."""
    with tempfile.TemporaryDirectory(prefix="cxr-metrics-") as folder:
        os.environ[METRICS_VARIABLE] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ[METRICS_VARIABLE]


@dataclass(frozen=True, slots=True)
class DeviceListener:
    """The socket to which workers connect. It outlives each device process."""

    listener: socket.socket
    address: Path


@contextmanager
def device_listener(folder: Path, *, is_wanted: bool) -> Iterator[DeviceListener | None]:
    """Listen for workers in a folder, if that is wanted."""
    if not is_wanted:
        yield None
        return
    address = folder / "device.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(address))
        listener.listen(_BACKLOG)
        yield DeviceListener(listener, address)
