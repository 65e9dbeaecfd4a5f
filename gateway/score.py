"""Ask the service about each image that waits; its report goes into the table to be delivered.

The service may be away for hours: images wait, and go on as soon as it answers again.
"""

import logging
import secrets
import sqlite3
import threading
import time

from cxr_client import Client, ClientError, ServiceProblem, TimedOut
from gateway import deliveries, instances
from gateway.audit import Transfer
from gateway.backoff import LONGEST_WAIT_S, Pause, wait_s
from gateway.deliveries import NewDelivery
from gateway.failpoints import failpoint
from gateway.header import Facts, UnreadableHeader, read_facts
from gateway.instances import Waiting
from gateway.loop_guard import is_own_result
from gateway.open_resources import OpenResources
from gateway.results_table import Answered, add_answer, rank_of
from gateway.rules import asking_of, choose, fingerprint, is_answered, question_of
from gateway.settings import ResultKind, Rule
from gateway.spool import digest_of_spooled
from gateway.structured_report import ResultObject, ServiceAnswer, UnreadableAnswer, read_report
from gateway.timeouts import FIRST_WAIT_S, MAX_TIMEOUTS, TimeoutWatch

_OF_THE_FILE = frozenset({413, 415, 422})
"""Statuses with which the service says that it will never answer this file."""

_MAX_FAILURES = 5
"""Tries of a file on which the service itself fails (500)."""

_DEADLINE_EXCEEDED = 504

_LONGEST_PAUSE_S = 10.0
_LONGEST_RETRY_S = 30.0
_MOST_OBEYED_S = LONGEST_WAIT_S
"""A Retry-After beyond this is a mistake of somebody on the way: images would wait for days."""

_AFTER_DISK_FAULT_S = 1.0

logger = logging.getLogger("gateway.score")


class _Skipped(Exception):
    """The image gets no answer, for good."""


class ScoringLoop:
    """Threads that ask the service; start them, and stop them at the end."""

    def __init__(self, parts: OpenResources, client: Client) -> None:
        """Ask a service through its client, which tries each request once."""
        self._parts, self._client = parts, client
        self._pause = Pause(_LONGEST_PAUSE_S)
        self._watch = TimeoutWatch()
        self._rules = fingerprint(parts.settings.rules)
        self._lock = threading.Lock()
        self._taken: set[int] = set()
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name=f"score-{number}", daemon=True)
            for number in range(parts.settings.service.workers)
        ]

    def start(self) -> None:
        """Begin with what waits."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish the images that are being asked about."""
        self._stopped.set()
        for thread in filter(threading.Thread.is_alive, self._threads):
            thread.join()

    @property
    def is_sound(self) -> bool:
        """Whether every thread lives."""
        return all(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        database = self._parts.database
        while not self._stopped.is_set():
            if self._stopped.wait(self._pause.left_s):
                break
            seen = database.commits
            try:
                has_tried = self._try_next()
            except Exception as exc:  # the disk is full or gone; it may come back
                logger.error("nothing can be noted: %s", type(exc).__name__)  # noqa: TRY400
                self._stopped.wait(_AFTER_DISK_FAULT_S)
                continue
            if not has_tried:
                database.wait_for_change(seen, timeout_s=0.5)

    def _try_next(self) -> bool:
        """Try the image that is due; returns whether there is one."""
        waiting = self._take()
        if waiting is None:
            return False
        try:
            self._score(waiting)
        except Exception as exc:
            logger.error("an image could not be handled: %s", type(exc).__name__)  # noqa: TRY400
            self._postpone(waiting, "internal", wait_s(waiting.tries + 1))
        finally:
            with self._lock:
                self._taken.discard(waiting.id)
        return True

    def _take(self) -> Waiting | None:
        with self._lock, self._parts.database.reading() as connection:
            waiting = instances.next_due(connection, now=time.time(), taken=self._taken)
            if waiting is not None:
                self._taken.add(waiting.id)
        return waiting

    def _score(self, waiting: Waiting) -> None:
        failpoint("score.claimed")
        started = time.monotonic()
        try:
            data, facts, rule = self._read(waiting)
            failpoint("score.read")
            if is_answered(rule, waiting.question):
                self._keep_answer(waiting)
            else:
                self._ask(waiting, data, facts, rule)
        except _Skipped as skipped:
            self._skip(waiting, str(skipped))
        except TimedOut:
            self._on_timeout(waiting, "unreachable", started)
        except ServiceProblem as problem:
            if problem.status == _DEADLINE_EXCEEDED:
                self._on_timeout(waiting, problem.code, started)
            else:
                self._on_problem(waiting, problem)
        except ClientError as error:
            self._on_silence(waiting, "unreachable", error.retry_after_s)
        except UnreadableAnswer:
            self._on_failure(waiting, "unreadable_answer")

    def _read(self, waiting: Waiting) -> tuple[bytes, Facts, Rule]:
        """Read an image's file, and find its rule; raises `_Skipped`."""
        try:
            data = self._parts.spool.read(waiting.file)
            facts = read_facts(data)
        except (FileNotFoundError, UnreadableHeader) as exc:
            raise _Skipped("unreadable") from exc
        if digest_of_spooled(data) != waiting.digest:
            raise _Skipped("damaged")
        if waiting.is_new:
            self._parts.audit.note(
                Transfer(
                    source=waiting.source_ae,
                    destination=self._parts.settings.node.ae_title,
                    study_uid=facts.study_uid,
                    sop_uid=waiting.sop_uid,
                    class_uid=facts.class_uid,
                    at=waiting.received_at,
                )
            )
        with self._parts.database.reading() as connection:
            if is_own_result(connection, facts):
                raise _Skipped("own_result")
        if facts.sop_uid != waiting.sop_uid:
            raise _Skipped("uid_mismatch")
        rule = choose(self._parts.settings.rules, facts, waiting.source_ae)
        if rule is None:
            raise _Skipped("no_rule")
        if rule.skip:
            raise _Skipped("rule")
        return data, facts, rule

    def _ask(self, waiting: Waiting, data: bytes, facts: Facts, rule: Rule) -> None:
        """Get the report and the pictures of one model version, and note them."""
        trace_id = secrets.token_hex(16)
        failpoint("score.before_request")
        kinds: tuple[ResultKind, ...] = ("sr",) if rule.silent else rule.results
        results = {kind: self._fetch(kind, data, rule, trace_id) for kind in kinds}
        failpoint("score.answered")
        self._note_answer(waiting)
        if len({result.model_sha256 for result in results.values()}) > 1:
            raise UnreadableAnswer("the model was replaced between two results")
        answer = read_report(results["sr"].content)
        failpoint("score.parsed")
        answered = Answered(waiting, facts, answer, rule.name, rule.silent, trace_id)
        self._note(answered, rule, results)

    def _fetch(self, kind: ResultKind, data: bytes, rule: Rule, trace_id: str) -> ResultObject:
        traceparent = f"00-{trace_id}-{secrets.token_hex(8)}-01"
        content = self._client.predict_dicom(
            data, result=kind, traceparent=traceparent, **asking_of(rule)
        )
        return ResultObject.read(content)

    def _note(
        self, answered: Answered, rule: Rule, results: dict[ResultKind, ResultObject]
    ) -> None:
        """Put the answer into the results table and its objects into the queue, at once."""
        instance, study_uid = answered.waiting.id, answered.facts.study_uid
        rank = rank_of(answered.facts)
        destinations = () if rule.silent else rule.destinations
        question = question_of(rule, silent=rule.silent)

        def note(connection: sqlite3.Connection) -> int:
            number = add_answer(connection, answered, self._parts.key)
            instances.mark_scored(connection, instance, self._rules, question)
            for destination in destinations:
                for kind, result in results.items():
                    new = NewDelivery(instance, number, destination, kind, result, rule.name, rank)
                    deliveries.add(connection, new)
            return deliveries.supersede(
                connection, study_uid=study_uid, rule=rule.name, rank=rank, instance=instance
            )

        superseded = self._parts.database.write("scored", note)
        metrics, label = self._parts.metrics, _label(answered.answer)
        metrics.superseded.inc(superseded)
        metrics.scored.labels(rule.name, label, str(rule.silent).lower()).inc()

    def _on_problem(self, waiting: Waiting, problem: ServiceProblem) -> None:
        """Skip what the service refuses, wait for what may pass, and report what is our fault."""
        if problem.status in _OF_THE_FILE:
            self._note_answer(waiting)
            self._skip(waiting, problem.code)
        elif problem.may_pass:
            self._on_silence(waiting, problem.code, problem.retry_after_s)
        elif problem.status >= 500:
            self._on_failure(waiting, problem.code)
        else:  # a wrong key, model or parameter: it stays so until somebody changes the settings
            self._postpone(waiting, problem.code, wait_s(waiting.tries + 1, longest_s=60))

    def _skip(self, waiting: Waiting, reason: str) -> None:
        self._parts.database.write(
            "skipped", lambda db: instances.skip(db, waiting.id, reason, self._rules)
        )
        self._parts.metrics.skipped.labels(reason).inc()

    def _keep_answer(self, waiting: Waiting) -> None:
        """Leave an image with its answer: other rules hold now, and they ask the same."""
        self._parts.database.write(
            "scored",
            lambda db: instances.mark_scored(db, waiting.id, self._rules, waiting.question),
        )

    def _note_answer(self, waiting: Waiting) -> None:
        self._watch.note_answer(waiting.id)
        self._pause.succeeded()
        self._parts.metrics.service_up.set(1)

    def _on_timeout(self, waiting: Waiting, reason: str, started: float) -> None:
        """Give a file up in the end if it has no answer while others have; else wait, everybody."""
        if not self._watch.is_fault_of(waiting.id, started):
            self._on_silence(waiting, reason, None)
            return
        timeouts = waiting.timeouts + 1
        if timeouts >= MAX_TIMEOUTS:
            self._bury(waiting, "no_answer_in_time")
            return
        wait = wait_s(timeouts, first_s=FIRST_WAIT_S)
        self._postpone(waiting, "no_answer_in_time", wait, timeouts=timeouts)

    def _on_silence(self, waiting: Waiting, reason: str, retry_after_s: float | None) -> None:
        """Wait, everybody; the image lets others go first, in case it is the cause."""
        if retry_after_s is not None:
            retry_after_s = min(retry_after_s, _MOST_OBEYED_S)
        self._pause.failed(retry_after_s)
        self._parts.metrics.service_up.set(int(reason != "unreachable"))
        wait = wait_s(waiting.tries + 1, longest_s=_LONGEST_RETRY_S)
        self._postpone(waiting, reason, max(wait, retry_after_s or 0))

    def _on_failure(self, waiting: Waiting, reason: str) -> None:
        """Try an image on which the service fails a few times, then give it up."""
        if waiting.tries + 1 < _MAX_FAILURES:
            self._postpone(waiting, reason, wait_s(waiting.tries + 1))
        else:
            self._bury(waiting, reason)

    def _bury(self, waiting: Waiting, reason: str) -> None:
        self._watch.forget(waiting.id)
        self._parts.database.write("dead", lambda db: instances.bury(db, waiting.id, reason))
        self._parts.metrics.dead.labels("service").inc()

    def _postpone(
        self, waiting: Waiting, reason: str, seconds: float, *, timeouts: int | None = None
    ) -> None:
        next_at = time.time() + seconds
        count = waiting.timeouts if timeouts is None else timeouts
        self._parts.database.write(
            "postponed",
            lambda db: instances.postpone(db, waiting.id, reason, next_at, timeouts=count),
        )
        self._parts.metrics.retried.labels("service").inc()


def _label(answer: ServiceAnswer) -> str:
    return "positive" if answer.is_positive else "negative"
