"""Reads and writes the results table: answers, what became of them, and what readers say.

Rows are only added; SQLite refuses to change one. UIDs and accession numbers are hashed with
the site's key, and nothing else of the patient is in a row but age, sex and view.
"""

import json
import sqlite3
import time
from dataclasses import dataclass
from typing import Literal

from gateway.hashing import SiteKey
from gateway.header import Facts
from gateway.instances import Waiting
from gateway.structured_report import ServiceAnswer

Verdict = Literal["accept", "reject", "other"]

_VIEW_RANKS = {"PA": 2, "AP": 1}


class UnknownAnswer(Exception):
    """There is no answer about this image, study or accession number."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer with all that its row says of it."""

    waiting: Waiting
    facts: Facts
    answer: ServiceAnswer
    rule: str
    is_silent: bool
    trace_id: str


def rank_of(facts: Facts) -> int:
    """Rank an image among those of its study: PA before AP before a view that is not stated."""
    return _VIEW_RANKS.get(facts.view or "", 0)


def add_answer(connection: sqlite3.Connection, answered: Answered, key: SiteKey) -> int:
    """Add the row of an answer; returns its number."""
    waiting, facts, answer = answered.waiting, answered.facts, answered.answer
    row = {
        "at": time.time(),
        "received_at": waiting.received_at,
        "source_ae": waiting.source_ae,
        "rule": answered.rule,
        "silent": int(answered.is_silent),
        "instance_hash": key.hash(waiting.sop_uid),
        "study_hash": key.hash(facts.study_uid),
        "accession_hash": key.hash(facts.accession) if facts.accession else None,
        "file_sha256": waiting.digest,
        "model": answer.model,
        "version": answer.version,
        "model_sha256": answer.model_sha256,
        "finding": answer.finding,
        "probability": answer.probability,
        "label": "positive" if answer.is_positive else "negative",
        "threshold": answer.threshold,
        "operating_point": answer.operating_point,
        "warnings": json.dumps(answer.warnings),
        "age_years": facts.age_years,
        "sex": facts.sex,
        "view": facts.view,
        "trace_id": answered.trace_id,
    }
    columns, marks = ", ".join(row), ", ".join("?" * len(row))
    cursor = connection.execute(
        f"INSERT INTO answers ({columns}) VALUES ({marks})",  # noqa: S608 - names from above
        tuple(row.values()),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def add_event(
    connection: sqlite3.Connection, answer: int, destination: str, kind: str, state: str
) -> None:
    """Note when a result reached a state at a destination."""
    connection.execute(
        "INSERT INTO answer_events (answer, destination, kind, state, at) VALUES (?, ?, ?, ?, ?)",
        (answer, destination, kind, state, time.time()),
    )


def add_verdict(
    connection: sqlite3.Connection,
    column: Literal["instance_hash", "study_hash", "accession_hash"],
    value: str,
    verdict: Verdict,
    label: str | None,
) -> int:
    """Note a reader's verdict about the current answer of an image, study or accession number.

    The current answer is that of the best view, the newest one if there are several.

    Returns:
        The answer's number.

    Raises:
        UnknownAnswer: there is none.
    """
    row = connection.execute(
        f"SELECT id FROM answers WHERE {column} = ? "  # noqa: S608 - one of three names
        "ORDER BY CASE view WHEN 'PA' THEN 2 WHEN 'AP' THEN 1 ELSE 0 END DESC, id DESC LIMIT 1",
        (value,),
    ).fetchone()
    if row is None:
        raise UnknownAnswer
    connection.execute(
        "INSERT INTO verdicts (answer, verdict, label, at) VALUES (?, ?, ?, ?)",
        (row["id"], verdict, label, time.time()),
    )
    return int(row["id"])
