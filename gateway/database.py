"""The one SQLite file: a writer that commits changes in groups, and readers beside it.

A change is a function that runs inside the writer's next transaction. Whoever submits a
change is told once it is committed, with WAL and synchronous=FULL: from then on it outlives
the process and the machine. Changes that wait at the same time share one commit and its fsync.
"""

import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from gateway.failpoints import failpoint
from gateway.schema import SCHEMA, UPGRADES, VERSION, append_only_triggers

_MAX_GROUP = 64
"""Changes that share one commit."""

_MAX_SPARE_READERS = 8

T = TypeVar("T")


class DatabaseError(Exception):
    """The file can't be opened, or belongs to another version of this program."""


@dataclass(frozen=True, slots=True)
class _Change:
    name: str
    run: Callable[[sqlite3.Connection], Any]
    done: "Future[Any]"


class Database:
    """The queue and the results on disk. Close it, so that waiting changes are committed."""

    def __init__(self, path: Path) -> None:
        """Open or make the file; raises `DatabaseError`."""
        self._path = path
        self._writer_connection = self._connect()
        _create(self._writer_connection)
        self._changes: queue.Queue[_Change | None] = queue.Queue()
        self._readers: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._closing = threading.Lock()
        self._is_closed = False
        self._changed = threading.Condition()
        self._commits = 0
        self._writer = threading.Thread(target=self._write, name="database", daemon=True)
        self._writer.start()

    def close(self) -> None:
        """Commit what waits, and close the file; what comes later is refused."""
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
            self._changes.put(None)
        self._writer.join()
        self._writer_connection.close()
        with suppress(queue.Empty):
            while True:
                self._readers.get_nowait().close()

    @property
    def is_sound(self) -> bool:
        """Whether the writer lives."""
        return self._writer.is_alive()

    @property
    def commits(self) -> int:
        """How many groups were committed since the file was opened."""
        return self._commits

    def wait_for_change(self, seen: int, *, timeout_s: float) -> None:
        """Wait until more than `seen` groups are committed, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._commits > seen, timeout_s)

    def submit(self, name: str, change: Callable[[sqlite3.Connection], T]) -> "Future[T]":
        """Run a change in the writer's next transaction.

        Args:
            name: what the change is called among the failpoints.
            change: runs in the writer's thread; an exception undoes this change alone.

        Returns:
            The change's result, once it is committed.
        """
        done: Future[T] = Future()
        with self._closing:
            if self._is_closed:
                raise DatabaseError("the database is closed")
            self._changes.put(_Change(name, change, done))
        return done

    def write(self, name: str, change: Callable[[sqlite3.Connection], T]) -> T:
        """Run a change and wait until it is committed; raises what the change raises."""
        return self.submit(name, change).result()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection that sees what is committed."""
        try:
            connection = self._readers.get_nowait()
        except queue.Empty:
            connection = self._connect()
        try:
            yield connection
        finally:
            if self._is_closed or self._readers.qsize() >= _MAX_SPARE_READERS:
                connection.close()
            else:
                self._readers.put(connection)

    def _connect(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                self._path, timeout=30, isolation_level=None, check_same_thread=False
            )
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
        except sqlite3.Error as exc:
            raise DatabaseError(f"the database can't be opened: {exc}") from exc
        return connection

    def _write(self) -> None:
        """Commit groups of changes until the database closes."""
        is_open = True
        while is_open:
            group = self._next_group()
            if group[-1] is None:
                is_open = False
            self._commit([change for change in group if change is not None])

    def _next_group(self) -> list[_Change | None]:
        """Wait for a change, and take those that wait behind it; None is the last one ever."""
        group = [self._changes.get()]
        with suppress(queue.Empty):
            while group[-1] is not None and len(group) < _MAX_GROUP:
                group.append(self._changes.get_nowait())
        return group

    def _commit(self, group: list[_Change]) -> None:
        """Run a group's changes in one transaction, and tell each submitter the outcome."""
        if not group:
            return
        outcomes: list[tuple[_Change, Any, Exception | None]] = []
        try:
            self._writer_connection.execute("BEGIN IMMEDIATE")
            outcomes += [(change, *self._run(change)) for change in group]
            for change in group:
                failpoint(f"before_commit.{change.name}")
            self._writer_connection.execute("COMMIT")
        except Exception as exc:  # nothing of the group is durable, so every submitter hears of it
            with suppress(sqlite3.Error):
                self._writer_connection.execute("ROLLBACK")
            for change in group:
                change.done.set_exception(exc)
            return
        for change in group:
            failpoint(f"after_commit.{change.name}")
        for change, result, error in outcomes:
            if error is None:
                change.done.set_result(result)
            else:
                change.done.set_exception(error)
        with self._changed:
            self._commits += 1
            self._changed.notify_all()

    def _run(self, change: _Change) -> tuple[Any, Exception | None]:
        """Run one change; if it fails, undo it alone."""
        self._writer_connection.execute("SAVEPOINT change")
        try:
            result = change.run(self._writer_connection)
        except Exception as exc:
            self._writer_connection.execute("ROLLBACK TO change")
            return None, exc
        finally:
            self._writer_connection.execute("RELEASE change")
        return result, None


def _create(connection: sqlite3.Connection) -> None:
    """Make the tables, or bring older ones up to date; raises `DatabaseError` if it can't."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        connection.executescript(
            f"BEGIN;{SCHEMA}{append_only_triggers()}PRAGMA user_version = {VERSION};COMMIT;"
        )
        return
    while version in UPGRADES:
        connection.executescript(
            f"BEGIN;{UPGRADES[version]}PRAGMA user_version = {version + 1};COMMIT;"
        )
        version += 1
    if version != VERSION:
        raise DatabaseError(f"the database has version {version}, this program wants {VERSION}")
