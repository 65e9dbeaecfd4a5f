"""What was given up: listed, and sent again if somebody says so."""

import re
import sqlite3
import time
from collections.abc import Collection
from dataclasses import dataclass

_NUMBER = re.compile(r"[id][0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An image that could not be scored (`i12`), or a result that could not be sent (`d34`)."""

    number: str
    uid: str
    target: str
    reason: str
    since: float


def list_dead(connection: sqlite3.Connection) -> list[DeadLetter]:
    """List all dead letters, oldest first."""
    instances = connection.execute(
        "SELECT 'i' || id, sop_uid, 'service', COALESCE(reason, ''), changed_at FROM instances "
        "WHERE state = 'dead'"
    )
    deliveries = connection.execute(
        "SELECT 'd' || id, sop_uid, destination, COALESCE(reason, ''), created_at FROM deliveries "
        "WHERE state = 'dead'"
    )
    letters = [DeadLetter(*row) for rows in (instances, deliveries) for row in rows]
    return sorted(letters, key=lambda letter: letter.since)


class RemovedDestination(Exception):
    """The settings no longer name the destination of a result."""

    def __init__(self, name: str) -> None:
        super().__init__(f"destination {name} is no longer configured")


class HasItsOwnCopy(Exception):
    """The other destination of a result has a row of the same result already."""

    def __init__(self, name: str) -> None:
        super().__init__(f"destination {name} has its own copy of this result")


def revive(
    connection: sqlite3.Connection,
    number: str,
    destinations: Collection[str] | None = None,
    *,
    to: str | None = None,
) -> bool:
    """Let a dead letter be tried again; returns whether there is one of this number.

    A result may have reached the archive at an earlier try, so it is asked for first.

    Args:
        connection: of the writer.
        number: as `DeadLetter.number`.
        destinations: those that the settings name; None if its own is known to be one of them.
        to: where a result goes instead.

    Raises:
        RemovedDestination: the result's destination is none of these.
        HasItsOwnCopy: the result needs not go to `to`; it stays as it is.
    """
    if not _NUMBER.fullmatch(number):
        return False
    if number[0] == "d":
        _redirect(connection, int(number[1:]), destinations, to)
    table = {"i": "instances", "d": "deliveries"}[number[0]]
    alive = "received" if table == "instances" else "scored"
    clock = ", timeouts = 0" if table == "instances" else ", uncertain = 1, created_at = ?"
    values = (alive, *(() if table == "instances" else (time.time(),)), int(number[1:]))
    cursor = connection.execute(
        f"UPDATE {table} SET state = ?, reason = NULL, tries = 0, next_at = 0{clock} "  # noqa: S608
        "WHERE id = ? AND state = 'dead'",
        values,
    )
    return cursor.rowcount == 1


def _redirect(
    connection: sqlite3.Connection,
    delivery: int,
    destinations: Collection[str] | None,
    to: str | None,
) -> None:
    """Point a dead result at another destination; raises as `revive`."""
    if to is not None:
        connection.execute(
            "UPDATE OR IGNORE deliveries SET destination = ? WHERE id = ? AND state = 'dead'",
            (to, delivery),
        )
    row = connection.execute(
        "SELECT destination FROM deliveries WHERE id = ? AND state = 'dead'", (delivery,)
    ).fetchone()
    if row is None:
        return
    if to is not None and row["destination"] != to:
        raise HasItsOwnCopy(to)
    if destinations is not None and row["destination"] not in destinations:
        raise RemovedDestination(row["destination"])
