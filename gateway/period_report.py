"""What a department wants to see of a period: how many, how fast, how often right."""

import json
import math
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta

import numpy as np

_Z_95 = 1.959963984540054

_ANSWERS = """
    SELECT a.id, a.received_at, a.source_ae, COALESCE(a.view, 'unstated') AS view, a.label,
        a.silent, a.model, a.version, a.model_sha256, a.warnings,
        (SELECT MIN(at) FROM answer_events WHERE answer = a.id AND state = 'confirmed'
            AND kind = 'sr') AS confirmed_at,
        (SELECT verdict FROM verdicts WHERE answer = a.id ORDER BY id DESC LIMIT 1) AS verdict
    FROM answers AS a WHERE a.received_at >= ? AND a.received_at < ? ORDER BY a.received_at
"""
"""A later verdict of the same answer replaces an earlier one."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its 95 % interval by Wilson's score."""

    count: int
    total: int

    @property
    def value(self) -> float | None:
        """The share from 0 to 1, None if there is nothing to count."""
        return self.count / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Lower and upper end, None if there is nothing to count."""
        if not self.total:
            return None
        share, weight = self.count / self.total, _Z_95**2 / self.total
        middle = share + weight / 2
        spread = _Z_95 * math.sqrt(share * (1 - share) / self.total + weight / self.total / 4)
        return (middle - spread) / (1 + weight), (middle + spread) / (1 + weight)

    def __str__(self) -> str:
        """Write the share as a person reads it."""
        if self.value is None or self.interval is None:
            return "-"
        low, high = self.interval
        return (
            f"{100 * self.value:.1f} % ({100 * low:.1f} to {100 * high:.1f}), "
            f"{self.count} of {self.total}"
        )


@dataclass(slots=True)
class Group:
    """Answers that have a sender, a view or a model in common."""

    name: str
    answers: int = 0
    positives: int = 0
    warned: int = 0
    accepted: int = 0
    judged: int = 0
    seconds: list[float] = field(default_factory=list)
    """From the last byte of an image to its report in the archive."""

    def add(self, row: sqlite3.Row) -> None:
        """Count one answer."""
        self.answers += 1
        self.positives += row["label"] == "positive"
        self.warned += row["warnings"] != "[]"
        self.judged += row["verdict"] is not None
        self.accepted += row["verdict"] == "accept"
        if row["confirmed_at"] is not None:
            self.seconds.append(row["confirmed_at"] - row["received_at"])

    @property
    def positive_share(self) -> Share:
        """Share of positive answers."""
        return Share(self.positives, self.answers)

    @property
    def concordance(self) -> Share:
        """Share of reader's verdicts that accept the answer."""
        return Share(self.accepted, self.judged)

    def percentile_s(self, percent: float) -> float | None:
        """Return a percentile of the seconds to the archive, None if nothing was sent."""
        return float(np.percentile(self.seconds, percent)) if self.seconds else None


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of a period."""

    first: date
    last: date
    total: Group
    groups: dict[str, list[Group]]
    """By what is compared: sender, view, model."""
    days: list[tuple[date, int, int]]
    """Each day with its answers and its positive ones."""
    warnings: list[tuple[str, int]]
    silent: int


def make_report(connection: sqlite3.Connection, first: date, last: date) -> Report:
    """Count the answers of a period.

    Args:
        connection: to the results.
        first: first day, in UTC.
        last: last day, included.
    """
    start = datetime.combine(first, time(), UTC).timestamp()
    end = datetime.combine(last + timedelta(days=1), time(), UTC).timestamp()
    rows = connection.execute(_ANSWERS, (start, end)).fetchall()
    total = Group("all")
    for row in rows:
        total.add(row)
    keys: dict[str, Callable[[sqlite3.Row], str]] = {
        "sender": lambda row: str(row["source_ae"]),
        "view": lambda row: str(row["view"]),
        "model": lambda row: f"{row['model']} {row['version']} ({row['model_sha256'][:12]})",
    }
    codes = Counter(code for row in rows for code in json.loads(row["warnings"]))
    return Report(
        first=first,
        last=last,
        total=total,
        groups={name: _group(rows, key) for name, key in keys.items()},
        days=list(_days(rows, first, last)),
        warnings=codes.most_common(),
        silent=sum(row["silent"] for row in rows),
    )


def _group(rows: Sequence[sqlite3.Row], key: Callable[[sqlite3.Row], str]) -> list[Group]:
    groups: dict[str, Group] = {}
    for row in rows:
        name = key(row)
        groups.setdefault(name, Group(name)).add(row)
    return sorted(groups.values(), key=lambda group: (-group.answers, group.name))


def _days(rows: Sequence[sqlite3.Row], first: date, last: date) -> Iterator[tuple[date, int, int]]:
    days = [datetime.fromtimestamp(row["received_at"], UTC).date() for row in rows]
    answers = Counter(days)
    positives = Counter(
        day for day, row in zip(days, rows, strict=True) if row["label"] == "positive"
    )
    for number in range((last - first).days + 1):
        day = first + timedelta(days=number)
        yield day, answers[day], positives[day]


def lines_of(report: Report) -> Iterator[str]:
    """Write a report for the terminal."""
    total = report.total
    yield f"{report.first} to {report.last} (UTC)"
    yield f"answers: {total.answers}, of these silent: {report.silent}"
    yield f"positive: {total.positive_share}"
    yield f"from last byte to archive: {_seconds(total)}"
    yield f"verdicts that accept the answer: {total.concordance}"
    for what, groups in report.groups.items():
        yield ""
        yield f"by {what}:"
        for group in groups:
            yield (
                f"  {group.name}: {group.answers} answers, positive {group.positive_share}, "
                f"{_seconds(group)}, accepted {group.concordance}"
            )
    if report.warnings:
        yield ""
        yield "warnings:"
        for code, count in report.warnings:
            yield f"  {code}: {Share(count, total.answers)}"


def _seconds(group: Group) -> str:
    median, tail = group.percentile_s(50), group.percentile_s(95)
    if median is None or tail is None:
        return "nothing was sent"
    return f"p50 {median:.1f} s, p95 {tail:.1f} s ({len(group.seconds)} reports)"
