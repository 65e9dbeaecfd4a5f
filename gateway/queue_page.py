"""The page `/gateway`: what waits, what is stuck and why; images are named by their hash."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway import dead_letters
from gateway.html_templates import environment
from gateway.node import Node
from gateway.retention import count_waiting, oldest_unsent

_MAX_ROWS = 200
_STUCK_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class Stuck:
    """An image or a result that has waited too long, or was given up."""

    number: str
    hash: str
    state: str
    target: str
    reason: str
    age_s: float


def render_page(node: Node) -> str:
    """Return the page as HTML."""
    database = node.parts.database
    now = time.time()
    with database.reading() as connection:
        counts = count_waiting(connection)
        oldest = oldest_unsent(connection)
        skipped = connection.execute(
            "SELECT reason, COUNT(*) FROM instances WHERE state = 'skipped' GROUP BY reason "
            "ORDER BY 2 DESC"
        ).fetchall()
        conflicts = connection.execute("SELECT COUNT(*) FROM conflicts").fetchone()[0]
    template = environment().get_template("page.html")
    return template.render(
        node=node.parts.settings.node,
        now=datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S"),
        faults=node.faults,
        counts=counts,
        oldest_s=now - oldest if oldest else 0.0,
        stuck=list_stuck(node, now),
        skipped=[tuple(row) for row in skipped],
        conflicts=conflicts,
        rules=node.parts.settings.rules,
    )


def list_stuck(node: Node, now: float) -> list[Stuck]:
    """List what has waited for a minute, and every dead letter, oldest first."""
    key, before = node.parts.key, now - _STUCK_AFTER_S
    with node.parts.database.reading() as connection:
        waiting = connection.execute(
            "SELECT 'i' || id, sop_uid, 'received', 'service', COALESCE(reason, ''), received_at "
            "FROM instances WHERE state = 'received' AND received_at < ? UNION ALL "
            "SELECT 'd' || id, sop_uid, state, destination, COALESCE(reason, ''), created_at "
            "FROM deliveries WHERE state IN ('scored', 'sent') AND created_at < ? "
            "ORDER BY 6 LIMIT ?",
            (before, before, _MAX_ROWS),
        ).fetchall()
        dead = dead_letters.list_dead(connection)
    stuck = [
        Stuck(number, key.hash(uid), state, target, reason, now - since)
        for number, uid, state, target, reason, since in waiting
    ]
    stuck += [
        Stuck(one.number, key.hash(one.uid), "dead", one.target, one.reason, now - one.since)
        for one in dead[:_MAX_ROWS]
    ]
    return stuck
