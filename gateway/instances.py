"""Rows of received instances: the part of the queue that waits to be scored."""

import sqlite3
import time
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

_ONE_ANSWER_A_DAY_S = 24 * 3600.0
_REASONS_OF_RULES = ("no_rule", "rule")
"""Why an image was skipped without a look at it: other settings may decide otherwise."""


class InstanceAdmission(Enum):
    """What became of an instance that was sent."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    """The same SOP Instance UID came with another data set; the first one is kept."""


@dataclass(frozen=True, slots=True)
class NewInstance:
    """An instance as it was received."""

    sop_uid: str
    class_uid: str
    digest: str
    bytes: int
    source_ae: str
    file: str
    rules: str
    """Fingerprint of the rules that hold now."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An instance that waits to be scored."""

    id: int
    sop_uid: str
    digest: str
    source_ae: str
    file: str
    received_at: float
    tries: int
    timeouts: int
    """Tries of which the service gave no answer in time, while it answered other images."""
    question: str | None
    """What it was answered before, if that answer still counts; see `rules.question_of`."""
    is_new: bool
    """Whether no try of it has ended since it was received."""


def look_up(
    connection: sqlite3.Connection, sop_uid: str, digest: str, rules: str
) -> InstanceAdmission:
    """Tell whether an instance is known, before anything of it is written."""
    row = connection.execute("SELECT * FROM instances WHERE sop_uid = ?", (sop_uid,)).fetchone()
    if row is None or (row["digest"] == digest and _is_asked_anew(connection, row, rules)):
        return InstanceAdmission.NEW
    return InstanceAdmission.DUPLICATE if row["digest"] == digest else InstanceAdmission.CONFLICT


def add(connection: sqlite3.Connection, new: NewInstance) -> InstanceAdmission:
    """Add an instance to those that wait; one that is known is left as it is.

    One that is to be answered anew and has a file keeps that file: its new one is a duplicate.
    """
    admission = look_up(connection, new.sop_uid, new.digest, new.rules)
    if admission is not InstanceAdmission.NEW:
        return admission
    row = connection.execute("SELECT * FROM instances WHERE sop_uid = ?", (new.sop_uid,)).fetchone()
    is_outdated = row is None or _has_an_outdated_answer(connection, row)
    question = None if is_outdated else row["question"]
    now = time.time()
    connection.execute(
        "INSERT INTO instances (sop_uid, class_uid, digest, bytes, source_ae, file, "
        "received_at, state, question, changed_at) VALUES (?, ?, ?, ?, ?, ?, ?, 'received', ?, ?) "
        "ON CONFLICT (sop_uid) DO UPDATE SET file = COALESCE(file, excluded.file), "
        "state = 'received', received_at = excluded.received_at, source_ae = excluded.source_ae, "
        "reason = NULL, tries = 0, timeouts = 0, next_at = 0, question = excluded.question, "
        "changed_at = excluded.changed_at",
        (
            new.sop_uid, new.class_uid, new.digest, new.bytes, new.source_ae, new.file, now,
            question, now,
        ),
    )  # fmt: skip
    is_held = row is not None and row["file"] is not None
    return InstanceAdmission.DUPLICATE if is_held else InstanceAdmission.NEW


def add_conflict(connection: sqlite3.Connection, sop_uid: str, digest: str, source_ae: str) -> None:
    """Note that another data set came under a known UID."""
    connection.execute(
        "INSERT OR IGNORE INTO conflicts (instance, digest, source_ae, at) "
        "SELECT id, ?, ?, ? FROM instances WHERE sop_uid = ?",
        (digest, source_ae, time.time(), sop_uid),
    )


def file_of(connection: sqlite3.Connection, sop_uid: str) -> str | None:
    """Return the spool file of an instance, None if it is gone."""
    row = connection.execute("SELECT file FROM instances WHERE sop_uid = ?", (sop_uid,)).fetchone()
    return None if row is None else row["file"]


def next_due(
    connection: sqlite3.Connection, *, now: float, taken: Collection[int]
) -> Waiting | None:
    """Return the instance that has waited longest and may be tried, None if there is none.

    One that was given up and is sent again has no tries either, but it has changed since.
    """
    rows = connection.execute(
        "SELECT id, sop_uid, digest, source_ae, file, received_at, tries, timeouts, "
        "question, tries = 0 AND changed_at = received_at "
        "FROM instances WHERE state = 'received' AND next_at <= ? "
        "ORDER BY next_at, id LIMIT ?",
        (now, len(taken) + 1),
    )
    row = next((row for row in rows if row["id"] not in taken), None)
    return None if row is None else Waiting(*row)


def skip(
    connection: sqlite3.Connection, instance: int, reason: str, rules: str | None = None
) -> None:
    """Leave an instance unanswered, and say why; `rules` are those that held."""
    connection.execute(
        "UPDATE instances SET state = 'skipped', reason = ?, rules = ?, changed_at = ? "
        "WHERE id = ?",
        (reason, rules, time.time(), instance),
    )


def mark_scored(
    connection: sqlite3.Connection, instance: int, rules: str, question: str | None
) -> None:
    """Note that an instance has its answer, under which rules, and to which question."""
    connection.execute(
        "UPDATE instances SET state = 'scored', reason = NULL, rules = ?, question = ?, "
        "changed_at = ? WHERE id = ?",
        (rules, question, time.time(), instance),
    )


def bury(connection: sqlite3.Connection, instance: int, reason: str) -> None:
    """Stop trying an instance; it is listed until somebody sends it again."""
    connection.execute(
        "UPDATE instances SET state = 'dead', reason = ?, changed_at = ? WHERE id = ?",
        (reason, time.time(), instance),
    )


def postpone(
    connection: sqlite3.Connection,
    instance: int,
    reason: str,
    next_at: float,
    *,
    timeouts: int,
) -> None:
    """Try an instance again later; `timeouts` is how often it alone had no answer in time."""
    connection.execute(
        "UPDATE instances SET tries = tries + 1, next_at = ?, reason = ?, timeouts = ? "
        "WHERE id = ?",
        (next_at, reason, timeouts, instance),
    )


def bring_near(connection: sqlite3.Connection, furthest_at: float) -> int:
    """Let instances be tried now whose next try lies too far ahead; returns how many."""
    return connection.execute(
        "UPDATE instances SET next_at = 0 WHERE state = 'received' AND next_at > ?",
        (furthest_at,),
    ).rowcount


def count_waiting(connection: sqlite3.Connection) -> int:
    """Return how many instances wait to be scored."""
    return int(
        connection.execute("SELECT COUNT(*) FROM instances WHERE state = 'received'").fetchone()[0]
    )


def forget(connection: sqlite3.Connection, instance: int) -> None:
    """Remove an instance and its deliveries; its answers stay in the results table."""
    connection.execute("DELETE FROM instances WHERE id = ?", (instance,))


def _is_asked_anew(connection: sqlite3.Connection, row: sqlite3.Row, rules: str) -> bool:
    """Tell whether a known image is looked at again: the rules or the model may be others now."""
    is_decided = row["state"] in ("scored", "skipped") and row["rules"] is not None
    if is_decided and row["rules"] != rules:
        return True
    if row["file"] is not None:
        return False
    is_unruled = row["state"] == "skipped" and row["reason"] in _REASONS_OF_RULES
    return is_unruled or _has_an_outdated_answer(connection, row)


def _has_an_outdated_answer(connection: sqlite3.Connection, row: sqlite3.Row) -> bool:
    """Tell whether a known image may be answered anew.

    That is so if the bundle that answered it has been replaced since, as a newer answer of the
    same rule shows, and its own answer is more than a day old.
    """
    if row["state"] != "scored":
        return False
    found = connection.execute(
        "SELECT 1 FROM answers AS old JOIN answers AS new ON new.rule = old.rule "
        "AND new.id > old.id AND new.model = old.model AND new.model_sha256 != old.model_sha256 "
        "WHERE old.id = (SELECT MAX(id) FROM answers WHERE file_sha256 = ?) "
        "AND old.at < ? ORDER BY new.id DESC LIMIT 1",
        (row["digest"], time.time() - _ONE_ANSWER_A_DAY_S),
    ).fetchone()
    return found is not None
