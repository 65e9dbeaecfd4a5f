"""The queue's file: one of an older version goes on with the rows that it holds."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.database import Database, DatabaseError

ADDED_SINCE_1 = ("timeouts", "rules", "question")
INSTANCE = (
    "INSERT INTO instances (sop_uid, class_uid, digest, bytes, source_ae, received_at, state, "
    "changed_at) VALUES ('1.2.3', '1.2', 'd', 1, 'SENDER', 1, 'received', 1)"
)


def test_a_queue_of_version_1_is_upgraded_and_keeps_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sqlite"
    Database(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        for column in ADDED_SINCE_1:
            connection.execute(f"ALTER TABLE instances DROP COLUMN {column}")
        connection.execute(INSTANCE)
        connection.execute("PRAGMA user_version = 1")
    with closing(Database(path)) as database, database.reading() as connection:
        (row,) = connection.execute("SELECT * FROM instances").fetchall()
    assert (row["sop_uid"], row["timeouts"]) == ("1.2.3", 0)


def test_a_queue_of_an_unknown_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sqlite"
    Database(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(DatabaseError, match="version 99"):
        Database(path)
