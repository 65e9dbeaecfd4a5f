"""Rows of results on their way to an archive: scored, sent, confirmed."""

import json
import sqlite3
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from gateway.results_table import add_event
from gateway.structured_report import ResultObject

State = Literal["scored", "sent", "confirmed", "superseded", "dead"]


REMOVED = "destination_removed"
"""Reason of a dead letter whose destination the settings no longer name."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A result that is due at an archive."""

    id: int
    answer: int
    destination: str
    kind: str
    class_uid: str
    sop_uid: str
    series_uid: str
    study_uid: str
    state: State
    uncertain: bool
    """An earlier try may have reached the archive: it is asked before anything is sent again."""
    tries: int
    created_at: float
    content: bytes


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """A result that is to go to an archive."""

    instance: int
    answer: int
    destination: str
    kind: str
    result: ResultObject
    rule: str
    rank: int
    """How good the image's view is; see `results_table.rank_of`."""


def add(connection: sqlite3.Connection, new: NewDelivery) -> None:
    """Let a result wait for an archive; one that waits or went there already is left alone."""
    result = new.result
    connection.execute(
        "INSERT OR IGNORE INTO deliveries (instance, answer, destination, kind, class_uid, "
        "sop_uid, series_uid, study_uid, rule, rank, content, state, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'scored', ?)",
        (
            new.instance, new.answer, new.destination, new.kind, result.class_uid, result.sop_uid,
            result.series_uid, result.study_uid, new.rule, new.rank, result.content, time.time(),
        ),
    )  # fmt: skip


def supersede(
    connection: sqlite3.Connection, *, study_uid: str, rule: str, rank: int, instance: int
) -> int:
    """Drop unsent results of a study's earlier images that are no better; returns how many."""
    rows = connection.execute(
        "SELECT id, answer, destination, kind FROM deliveries WHERE study_uid = ? AND rule = ? "
        "AND rank <= ? AND instance < ? AND state = 'scored' AND uncertain = 0",
        (study_uid, rule, rank, instance),
    ).fetchall()
    for row in rows:
        connection.execute(
            "UPDATE deliveries SET state = 'superseded', content = NULL WHERE id = ?", (row["id"],)
        )
        add_event(connection, row["answer"], row["destination"], row["kind"], "superseded")
    return len(rows)


def next_due(
    connection: sqlite3.Connection, destination: str, *, now: float, taken: Collection[int]
) -> Delivery | None:
    """Return the result that has waited longest for an archive, None if none is due."""
    rows = connection.execute(
        "SELECT id FROM deliveries WHERE destination = ? AND state IN ('scored', 'sent') "
        "AND next_at <= ? ORDER BY next_at, id LIMIT ?",
        (destination, now, len(taken) + 1),
    )
    found = next((row["id"] for row in rows if row["id"] not in taken), None)
    if found is None:
        return None
    row = connection.execute(
        "SELECT id, answer, destination, kind, class_uid, sop_uid, series_uid, study_uid, state, "
        "uncertain, tries, created_at, content FROM deliveries WHERE id = ?",
        (found,),
    ).fetchone()
    return Delivery(*row)


def mark_intent(connection: sqlite3.Connection, delivery: int) -> bool:
    """Note that a result is about to be sent; returns whether it still is to be sent.

    From now on a crash leaves open whether the archive has it.
    """
    cursor = connection.execute(
        "UPDATE deliveries SET uncertain = 1, tries = tries + 1 WHERE id = ? AND state = 'scored'",
        (delivery,),
    )
    return cursor.rowcount == 1


def mark_sent(connection: sqlite3.Connection, delivery: Delivery) -> None:
    """Note that the archive has accepted a result."""
    connection.execute(
        "UPDATE deliveries SET state = 'sent', reason = NULL, tries = 0 WHERE id = ?",
        (delivery.id,),
    )
    add_event(connection, delivery.answer, delivery.destination, delivery.kind, "sent")


def mark_confirmed(connection: sqlite3.Connection, delivery: Delivery) -> None:
    """Note that the archive says it holds a result; its content is not needed any more."""
    connection.execute(
        "UPDATE deliveries SET state = 'confirmed', reason = NULL, content = NULL WHERE id = ?",
        (delivery.id,),
    )
    add_event(connection, delivery.answer, delivery.destination, delivery.kind, "confirmed")


def mark_lost(connection: sqlite3.Connection, delivery: int, next_at: float) -> None:
    """Send a result again that the archive accepted and does not hold."""
    connection.execute(
        "UPDATE deliveries SET state = 'scored', uncertain = 1, reason = 'not_held', next_at = ? "
        "WHERE id = ?",
        (next_at, delivery),
    )


def postpone(
    connection: sqlite3.Connection,
    delivery: int,
    reason: str,
    next_at: float,
    *,
    uncertain: bool,
) -> None:
    """Try again later; `uncertain` tells whether the archive may have the result already."""
    connection.execute(
        "UPDATE deliveries SET reason = ?, next_at = ?, uncertain = ? WHERE id = ?",
        (reason, next_at, int(uncertain), delivery),
    )


def count_try(connection: sqlite3.Connection, delivery: int, reason: str, next_at: float) -> None:
    """Ask again later whether the archive holds a result that it accepted."""
    connection.execute(
        "UPDATE deliveries SET tries = tries + 1, reason = ?, next_at = ? WHERE id = ?",
        (reason, next_at, delivery),
    )


def bury(connection: sqlite3.Connection, delivery: Delivery, reason: str) -> None:
    """Give a result up: a dead letter, listed until somebody sends it again."""
    connection.execute(
        "UPDATE deliveries SET state = 'dead', reason = ? WHERE id = ?", (reason, delivery.id)
    )
    add_event(connection, delivery.answer, delivery.destination, delivery.kind, "dead")


def set_aside_removed(connection: sqlite3.Connection, destinations: Collection[str]) -> int:
    """Give up results for destinations that the settings do not name; take up what came back.

    Returns:
        How many results were given up: dead letters, kept until somebody decides.
    """
    names = json.dumps(list(destinations))
    rows = connection.execute(
        "SELECT id, answer, destination, kind FROM deliveries WHERE state IN ('scored', 'sent') "
        "AND destination NOT IN (SELECT value FROM json_each(?))",
        (names,),
    ).fetchall()
    for row in rows:
        connection.execute(
            "UPDATE deliveries SET uncertain = MAX(uncertain, state = 'sent'), state = 'dead', "
            "reason = ? WHERE id = ?",
            (REMOVED, row["id"]),
        )
        add_event(connection, row["answer"], row["destination"], row["kind"], "dead")
    connection.execute(
        "UPDATE deliveries SET state = 'scored', reason = NULL, tries = 0, next_at = 0, "
        "created_at = ? WHERE state = 'dead' AND reason = ? "
        "AND destination IN (SELECT value FROM json_each(?))",
        (time.time(), REMOVED, names),
    )
    return len(rows)


def count_for_removed(
    connection: sqlite3.Connection, destinations: Collection[str]
) -> dict[str, int]:
    """Count unfinished results by destination, for those that the settings do not name."""
    rows = connection.execute(
        "SELECT destination, COUNT(*) FROM deliveries WHERE state IN ('scored', 'sent', 'dead') "
        "AND destination NOT IN (SELECT value FROM json_each(?)) GROUP BY destination",
        (json.dumps(list(destinations)),),
    )
    return {row[0]: row[1] for row in rows}


def bring_near(connection: sqlite3.Connection, destination: str, furthest_at: float) -> int:
    """Let results be tried now whose next try lies too far ahead; returns how many."""
    return connection.execute(
        "UPDATE deliveries SET next_at = 0 WHERE destination = ? "
        "AND state IN ('scored', 'sent') AND next_at > ?",
        (destination, furthest_at),
    ).rowcount


def settle(connection: sqlite3.Connection, next_at: dict[str, float]) -> None:
    """After a crash, give archives a moment to finish what they were being sent.

    Args:
        connection: of the writer.
        next_at: when each destination may be asked.
    """
    for destination, at in next_at.items():
        connection.execute(
            "UPDATE deliveries SET next_at = ? WHERE destination = ? AND state = 'scored' "
            "AND uncertain = 1 AND next_at < ?",
            (at, destination, at),
        )
