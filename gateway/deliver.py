"""Bring each result to its archive, once: intent, send, confirm, one commit each.

Nothing is sent a second time before the archive was asked whether it has the first. While an
archive can't be reached nobody tries in vain; when it answers again everything goes on at once.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial

from gateway import deliveries
from gateway.archive import Archive, ArchiveDown, Rejected, Stored
from gateway.archive_dimse import DimseArchive
from gateway.archive_stow import StowArchive
from gateway.audit import Transfer
from gateway.backoff import LONGEST_WAIT_S, Pause, wait_s
from gateway.deliveries import Delivery
from gateway.failpoints import failpoint
from gateway.open_resources import OpenResources
from gateway.settings import Destination

_LONGEST_PAUSE_S = 20.0
_AFTER_DISK_FAULT_S = 1.0
_MAX_ASKS = 5
"""Times that an archive is asked for a result that it accepted, before it is sent again."""

logger = logging.getLogger("gateway.deliver")


class Deliverer:
    """Threads that serve one destination; start them, and stop them at the end."""

    def __init__(self, parts: OpenResources, destination: Destination) -> None:
        """Prepare the connections; raises `OSError` if a key or certificate is missing."""
        self._parts, self._destination = parts, destination
        self._pause = Pause(_LONGEST_PAUSE_S)
        self._lock = threading.Lock()
        self._taken: set[int] = set()
        self._stopped = threading.Event()
        self._up = parts.metrics.destination_up.labels(destination.name)
        own_ae = parts.settings.node.ae_title
        with ExitStack() as opened:
            archives = [
                opened.enter_context(closing(open_archive(destination, own_ae)))
                for _ in range(destination.workers)
            ]
            self._archives = opened.pop_all()
        self._threads = [
            threading.Thread(
                target=self._run,
                args=(archive,),
                name=f"deliver-{destination.name}-{number}",
                daemon=True,
            )
            for number, archive in enumerate(archives)
        ]

    def start(self) -> None:
        """Begin with what waits."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish the results that are being sent, and close the connections."""
        self._stopped.set()
        for thread in filter(threading.Thread.is_alive, self._threads):
            thread.join()
        self._archives.close()

    @property
    def is_sound(self) -> bool:
        """Whether every thread lives."""
        return all(thread.is_alive() for thread in self._threads)

    def _run(self, archive: Archive) -> None:
        database = self._parts.database
        while not self._stopped.is_set():
            if self._stopped.wait(self._pause.left_s):
                break
            seen = database.commits
            try:
                has_tried = self._try_next(archive)
            except Exception as exc:  # the disk is full or gone; it may come back
                logger.error("nothing can be noted: %s", type(exc).__name__)  # noqa: TRY400
                self._stopped.wait(_AFTER_DISK_FAULT_S)
                continue
            if not has_tried:
                archive.rest()
                database.wait_for_change(seen, timeout_s=0.5)

    def _try_next(self, archive: Archive) -> bool:
        """Try the result that is due; returns whether there is one."""
        delivery = self._take()
        if delivery is None:
            return False
        try:
            self._handle(archive, delivery)
        finally:
            with self._lock:
                self._taken.discard(delivery.id)
        return True

    def _take(self) -> Delivery | None:
        with self._lock, self._parts.database.reading() as connection:
            delivery = deliveries.next_due(
                connection, self._destination.name, now=time.time(), taken=self._taken
            )
            if delivery is not None:
                self._taken.add(delivery.id)
        return delivery

    def _handle(self, archive: Archive, delivery: Delivery) -> None:
        failpoint("send.claimed")
        try:
            self._deliver(archive, delivery)
        except ArchiveDown as down:
            self._pause.failed()
            self._up.set(0)
            uncertain = delivery.uncertain or not down.nothing_sent
            self._postpone(delivery, str(down), longest_s=_LONGEST_PAUSE_S, uncertain=uncertain)
        except Rejected as rejection:
            self._reached()
            self._on_rejection(delivery, rejection)
        except Exception as exc:
            logger.error("a result could not be handled: %s", type(exc).__name__)  # noqa: TRY400
            self._postpone(delivery, "internal", longest_s=LONGEST_WAIT_S)

    def _deliver(self, archive: Archive, delivery: Delivery) -> None:
        """Take a result as far as it goes: ask first if a try came before, send, and confirm."""
        what = Stored(delivery.class_uid, delivery.sop_uid, delivery.series_uid, delivery.study_uid)
        asks = self._destination.confirm == "query"
        if delivery.state == "scored" and not (
            delivery.uncertain and asks and self._is_there(archive, what)
        ):
            if not self._commit("intent", partial(deliveries.mark_intent, delivery=delivery.id)):
                return  # superseded meanwhile
            failpoint("send.before_request")
            archive.store(delivery.content)
            self._reached()
            self._commit("sent", partial(deliveries.mark_sent, delivery=delivery))
            self._parts.metrics.sent.labels(self._destination.name).inc()
            self._note(delivery, succeeded=True)
            if asks and not self._is_there(archive, what):
                self._ask_later(delivery)
                return
        elif delivery.state == "sent" and asks and not self._is_there(archive, what):
            self._ask_later(delivery)
            return
        self._commit("confirmed", partial(deliveries.mark_confirmed, delivery=delivery))
        self._parts.metrics.confirmed.labels(self._destination.name).inc()
        self._observe(delivery)

    def _is_there(self, archive: Archive, what: Stored) -> bool:
        failpoint("confirm.before_query")
        is_there = archive.holds(what)
        failpoint("confirm.answered")
        self._reached()
        return is_there

    def _ask_later(self, delivery: Delivery) -> None:
        """Ask again for a result that the archive accepted; in the end send it again."""
        now = time.time()
        age_s = now - delivery.created_at
        tries = delivery.tries + 1 if delivery.state == "sent" else 1
        pause_s = wait_s(tries, first_s=self._destination.settle_seconds)
        if tries < _MAX_ASKS:
            change = partial(
                deliveries.count_try, delivery=delivery.id, reason="not_held", next_at=now + pause_s
            )
        elif age_s > self._destination.give_up_days * 86_400:
            self._bury(delivery, "not_held")
            return
        else:  # as long again as it has waited: an archive that forgets is not sent it every minute
            pause_s = max(pause_s, min(age_s, LONGEST_WAIT_S))
            change = partial(deliveries.mark_lost, delivery=delivery.id, next_at=now + pause_s)
        self._commit("postponed", change)
        self._parts.metrics.retried.labels(self._destination.name).inc()

    def _on_rejection(self, delivery: Delivery, rejection: Rejected) -> None:
        self._note(delivery, succeeded=False)
        if rejection.may_pass:
            self._postpone(delivery, rejection.reason, longest_s=LONGEST_WAIT_S)
        else:
            self._bury(delivery, rejection.reason)

    def _postpone(
        self, delivery: Delivery, reason: str, *, longest_s: float, uncertain: bool = True
    ) -> None:
        age_s = time.time() - delivery.created_at
        if age_s > self._destination.give_up_days * 86_400:
            self._bury(delivery, reason)
            return
        pause_s = max(
            wait_s(delivery.tries + 1, longest_s=longest_s), self._destination.settle_seconds
        )
        next_at = time.time() + pause_s
        self._commit(
            "postponed",
            partial(
                deliveries.postpone,
                delivery=delivery.id,
                reason=reason,
                next_at=next_at,
                uncertain=uncertain,
            ),
        )
        self._parts.metrics.retried.labels(self._destination.name).inc()

    def _bury(self, delivery: Delivery, reason: str) -> None:
        self._commit("dead", partial(deliveries.bury, delivery=delivery, reason=reason))
        self._parts.metrics.dead.labels(self._destination.name).inc()

    def _commit(self, name: str, change: Callable[[sqlite3.Connection], bool | None]) -> bool:
        return self._parts.database.write(name, change) is not False

    def _reached(self) -> None:
        self._pause.succeeded()
        self._up.set(1)

    def _note(self, delivery: Delivery, *, succeeded: bool) -> None:
        self._parts.audit.note(
            Transfer(
                source=self._parts.settings.node.ae_title,
                destination=delivery.destination,
                study_uid=delivery.study_uid,
                sop_uid=delivery.sop_uid,
                class_uid=delivery.class_uid,
                at=time.time(),
                succeeded=succeeded,
            )
        )

    def _observe(self, delivery: Delivery) -> None:
        with self._parts.database.reading() as connection:
            received_at = connection.execute(
                "SELECT received_at FROM answers WHERE id = ?", (delivery.answer,)
            ).fetchone()["received_at"]
        seconds = time.time() - received_at
        self._parts.metrics.answer_duration.labels(self._destination.name).observe(seconds)


def open_archive(destination: Destination, own_ae: str) -> Archive:
    """Return the archive of a destination, by the way that its settings name."""
    if destination.stow_url is not None:
        return StowArchive(destination)
    return DimseArchive(destination, own_ae)
