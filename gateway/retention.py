"""Housekeeping: files leave the spool when their result is in the archive, rows much later."""

import logging
import shutil
import sqlite3
import threading
import time

from gateway import deliveries, instances
from gateway.backoff import FURTHEST_S
from gateway.database import Database, DatabaseError
from gateway.failpoints import failpoint
from gateway.metrics import GatewayMetrics
from gateway.settings import GatewaySettings
from gateway.spool import Spool

_EVERY_S = 1.0
_GROUP = 200

_RELEASABLE = """
    SELECT id, file FROM instances WHERE file IS NOT NULL AND state IN ('scored', 'skipped')
    AND NOT EXISTS (
        SELECT 1 FROM deliveries WHERE instance = instances.id
        AND deliveries.state NOT IN ('confirmed', 'superseded')
    ) LIMIT ?
"""
"""Instances whose file nobody needs any more; one with a dead letter keeps it."""

_FORGETTABLE = """
    SELECT id FROM instances WHERE file IS NULL AND state IN ('scored', 'skipped')
    AND changed_at < ? LIMIT ?
"""

_SPOOLED_BYTES = "SELECT COALESCE(SUM(bytes), 0) FROM instances WHERE file IS NOT NULL"

_LATEST_INSTANCE = "SELECT 1 FROM instances WHERE state = 'received' AND next_at > ? LIMIT 1"
_LATEST_DELIVERY = (
    "SELECT 1 FROM deliveries WHERE destination = ? AND state IN ('scored', 'sent') "
    "AND next_at > ? LIMIT 1"
)

logger = logging.getLogger("gateway.retention")


class Housekeeper:
    """A thread that deletes what is not needed, and measures what waits."""

    def __init__(
        self, settings: GatewaySettings, database: Database, spool: Spool, metrics: GatewayMetrics
    ) -> None:
        """Keep house for one spool and table."""
        self._node, self._destinations = settings.node, settings.destinations
        self._database, self._spool, self._metrics = database, spool, metrics
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, if it has begun."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def is_sound(self) -> bool:
        """Whether the thread lives."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.release()
                self.forget()
                self.bring_near()
                self.measure()
            except (OSError, sqlite3.Error, DatabaseError) as exc:
                logger.error("housekeeping failed: %s", type(exc).__name__)  # noqa: TRY400
            self._stopped.wait(_EVERY_S)

    def release(self) -> int:
        """Delete the files of answered and of skipped instances; returns how many.

        The row gives its file up first: a crash in between leaves a file without a row, and the
        start removes those.
        """
        with self._database.reading() as connection:
            found = connection.execute(_RELEASABLE, (_GROUP,)).fetchall()
        if not found:
            return 0
        released = self._database.write("released", lambda connection: _release(connection, found))
        failpoint("retain.before_delete")
        for name in released:
            self._spool.delete(name)
            failpoint("retain.deleted")
        return len(released)

    def forget(self) -> None:
        """Drop rows of the queue that are older than duplicates are remembered for."""
        before = time.time() - self._node.remember_days * 86_400
        with self._database.reading() as connection:
            found = connection.execute(_FORGETTABLE, (before, _GROUP)).fetchall()
        if found:
            self._database.write(
                "forgotten",
                lambda connection: connection.executemany(
                    "DELETE FROM instances WHERE id = ?", [(row["id"],) for row in found]
                ),
            )

    def bring_near(self) -> None:
        """Mend the times of next tries after the clock was set back."""
        now = time.time()
        furthest = {
            one.name: now + max(FURTHEST_S, one.settle_seconds) for one in self._destinations
        }
        with self._database.reading() as connection:
            latest = [
                *connection.execute(_LATEST_INSTANCE, (now + FURTHEST_S,)),
                *(
                    row
                    for place in furthest.items()
                    for row in connection.execute(_LATEST_DELIVERY, place)
                ),
            ]
        if latest:
            self._database.write("settled", lambda connection: _bring_near(connection, furthest))
            logger.warning("the clock was set back: what waits is tried again now")

    def measure(self) -> None:
        """Set the gauges of what waits."""
        with self._database.reading() as connection:
            waiting = count_waiting(connection)
            oldest = oldest_unsent(connection)
            spooled = connection.execute(_SPOOLED_BYTES).fetchone()[0]
        for state, count in waiting.items():
            self._metrics.waiting.labels(state).set(count)
        self._metrics.oldest_unsent.set(max(0.0, time.time() - oldest) if oldest else 0.0)
        self._metrics.spool_bytes.set(spooled)
        usage = shutil.disk_usage(self._spool.folder)
        self._metrics.disk_free_ratio.set(usage.free / usage.total)


def _release(connection: sqlite3.Connection, found: list[sqlite3.Row]) -> list[str]:
    """Let rows give up their files, unless they came again meanwhile; return the files."""
    return [
        row["file"]
        for row in found
        if connection.execute(
            "UPDATE instances SET file = NULL, changed_at = ? WHERE id = ? AND file = ? "
            "AND state IN ('scored', 'skipped')",
            (time.time(), row["id"], row["file"]),
        ).rowcount
    ]


def _bring_near(connection: sqlite3.Connection, furthest: dict[str, float]) -> None:
    instances.bring_near(connection, time.time() + FURTHEST_S)
    for destination, at in furthest.items():
        deliveries.bring_near(connection, destination, at)


def count_waiting(connection: sqlite3.Connection) -> dict[str, int]:
    """Count what is on its way by state; `dead` are dead letters of both kinds."""
    counts = {"received": 0, "scored": 0, "sent": 0, "dead": 0}
    for query in (
        "SELECT state, COUNT(*) FROM instances WHERE state IN ('received', 'dead') GROUP BY state",
        (
            "SELECT state, COUNT(*) FROM deliveries WHERE state IN ('scored', 'sent', 'dead') "
            "GROUP BY state"
        ),
    ):
        for state, count in connection.execute(query):
            counts[state] += count
    return counts


def oldest_unsent(connection: sqlite3.Connection) -> float | None:
    """Return when the oldest image without its result in the archive came, None if none waits."""
    row = connection.execute(
        "SELECT MIN(received_at) FROM ("
        "SELECT received_at FROM instances WHERE state = 'received' UNION ALL "
        "SELECT answers.received_at FROM deliveries JOIN answers ON answers.id = answer "
        "WHERE deliveries.state IN ('scored', 'sent'))"
    ).fetchone()
    return None if row is None else row[0]
