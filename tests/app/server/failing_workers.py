"""Workers that fail, each in its way: what a parent starts in place of a service.

A process imports this module alone, and so it starts soon.
"""

import asyncio
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.server.worker_slot import WorkerSlot
    from app.settings import Settings


def end_at_once(_settings: "Settings", _worker_slot: "WorkerSlot") -> None:
    """Be a worker that can't even start."""
    os._exit(3)


def beat_once(_settings: "Settings", worker_slot: "WorkerSlot") -> None:
    """Be a worker whose event loop sticks after its first beat."""
    os.write(worker_slot.heartbeat.fileno(), b".")
    time.sleep(60)


def complain(_settings: "Settings", worker_slot: "WorkerSlot") -> None:
    """Be a worker of which a part has died."""
    try:
        asyncio.run(worker_slot.send_heartbeats(lambda: False))
    except KeyboardInterrupt:
        return
    raise AssertionError("the parent did not end the worker")
