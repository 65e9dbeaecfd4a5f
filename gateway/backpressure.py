"""When to refuse: before the disk is full, or the queue longer than anybody wants to wait for."""

import shutil
import sqlite3
import threading
import time

from gateway import instances
from gateway.database import Database
from gateway.settings import NodeSettings
from gateway.spool import Spool

_LOOK_AGAIN_S = 0.5


class Backpressure:
    """Room on the disk and in the queue, looked up at most twice a second."""

    def __init__(self, node: NodeSettings, spool: Spool, database: Database) -> None:
        """Watch the disk of the spool."""
        self._node, self._spool, self._database = node, spool, database
        self._lock = threading.Lock()
        self._looked_at = 0.0
        self._reason: str | None = None

    def reason_to_refuse(self) -> str | None:
        """Return why nothing can be taken now: `disk` or `queue`; None if something can."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked_at >= _LOOK_AGAIN_S:
                self._reason = self._look()
                self._looked_at = now
            return self._reason

    def _look(self) -> str | None:
        usage = shutil.disk_usage(self._spool.folder)
        is_low = usage.free < max(
            usage.total * self._node.min_free_percent / 100, self._node.min_free_gb * 1e9
        )
        if is_low:
            return "disk"
        try:
            with self._database.reading() as connection:
                is_full = instances.count_waiting(connection) >= self._node.max_waiting
        except sqlite3.Error:
            return "disk"
        return "queue" if is_full else None
