"""One received instance: refused, known already, or durable. Nothing else is done with it here."""

import logging
import re
import sqlite3
import time
from dataclasses import dataclass

from pydicom.uid import UID
from pynetdicom.dsutils import create_file_meta, encode_file_meta

from gateway import instances
from gateway.backpressure import Backpressure
from gateway.database import Database, DatabaseError
from gateway.failpoints import failpoint
from gateway.instances import InstanceAdmission, NewInstance
from gateway.metrics import GatewayMetrics
from gateway.presentation_contexts import RADIOGRAPHS
from gateway.spool import Spool, digest_of

OUT_OF_RESOURCES = 0xA700
SOP_CLASS_NOT_SUPPORTED = 0x0122
CANNOT_UNDERSTAND = 0xC000
"""Statuses of C-STORE (PS3.4 B.2.3, PS3.7 annex C)."""

_UID = re.compile(r"[0-9.]{1,64}")

logger = logging.getLogger("gateway.receive")


class RefusedInstance(Exception):
    """The instance is not taken; `status` is what DICOM calls the reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass(frozen=True, slots=True)
class Incoming:
    """An instance on its way in; the data set is as it was encoded by the sender."""

    class_uid: str
    sop_uid: str
    syntax: str
    data_set: bytes
    source_ae: str


class Receiver:
    """Takes instances from C-STORE and STOW-RS alike."""

    def __init__(
        self,
        database: Database,
        spool: Spool,
        backpressure: Backpressure,
        metrics: GatewayMetrics,
        *,
        rules: str,
    ) -> None:
        """Take instances into a spool and a table; `rules` is the fingerprint of the rules."""
        self._rules = rules
        self._database, self._spool = database, spool
        self._backpressure, self._metrics = backpressure, metrics

    def admit(self, incoming: Incoming) -> InstanceAdmission:
        """Return once the instance is durable, or was known before.

        Raises:
            RefusedInstance: with the status that the sender is to get.
        """
        started = time.monotonic()
        try:
            admission = self._admit(incoming)
        except RefusedInstance as refused:
            self._metrics.refused.labels(refused.reason).inc()
            raise
        except (OSError, sqlite3.Error, DatabaseError) as exc:
            logger.error("nothing can be written: %s", type(exc).__name__)  # noqa: TRY400
            self._metrics.refused.labels("disk").inc()
            raise RefusedInstance(OUT_OF_RESOURCES, "disk") from exc
        self._metrics.received.labels(incoming.source_ae, admission.value).inc()
        self._metrics.receive_duration.observe(time.monotonic() - started)
        return admission

    def _admit(self, incoming: Incoming) -> InstanceAdmission:
        if incoming.class_uid not in RADIOGRAPHS:
            raise RefusedInstance(SOP_CLASS_NOT_SUPPORTED, "sop_class")
        if not _UID.fullmatch(incoming.sop_uid) or not incoming.data_set:
            raise RefusedInstance(CANNOT_UNDERSTAND, "no_instance")
        if reason := self._backpressure.reason_to_refuse():
            raise RefusedInstance(OUT_OF_RESOURCES, reason)
        digest = digest_of(incoming.data_set)
        with self._database.reading() as connection:
            admission = instances.look_up(connection, incoming.sop_uid, digest, self._rules)
        if admission is InstanceAdmission.NEW:
            admission = self._store(incoming, digest)
        if admission is InstanceAdmission.DUPLICATE:
            self._sync_the_first(incoming.sop_uid)
        if admission is InstanceAdmission.CONFLICT:
            self._database.write(
                "conflict",
                lambda connection: instances.add_conflict(
                    connection, incoming.sop_uid, digest, incoming.source_ae
                ),
            )
        failpoint("receive.durable")
        return admission

    def _store(self, incoming: Incoming, digest: str) -> InstanceAdmission:
        """Write file and row; the file is synced while the row is committed.

        A row whose file is not whole after a power cut belongs to an instance that nobody
        acknowledged: the start drops it, and the sender sends it again.
        """
        name = self._spool.create((_file_head(incoming), incoming.data_set))
        new = NewInstance(
            sop_uid=incoming.sop_uid,
            class_uid=incoming.class_uid,
            digest=digest,
            bytes=len(incoming.data_set),
            source_ae=incoming.source_ae,
            file=name,
            rules=self._rules,
        )

        def add(connection: sqlite3.Connection) -> InstanceAdmission:
            self._spool.sync_folder()
            return instances.add(connection, new)

        row = self._database.submit("received", add)
        try:
            self._spool.sync_file(name)
        except OSError:
            if row.result() is InstanceAdmission.NEW:
                self._database.write("forgotten", lambda connection: _remove(connection, name))
            self._spool.delete(name)
            raise
        try:
            admission = row.result()
        except Exception:
            self._spool.delete(name)
            raise
        if admission is not InstanceAdmission.NEW:
            self._spool.delete(name)
        return admission

    def _sync_the_first(self, sop_uid: str) -> None:
        """Wait until the copy that came first is on the disk: its own sender may still wait."""
        with self._database.reading() as connection:
            name = instances.file_of(connection, sop_uid)
        if name is not None:
            try:
                self._spool.sync_file(name)
            except FileNotFoundError:
                return  # answered and deleted meanwhile


def _remove(connection: sqlite3.Connection, file: str) -> None:
    connection.execute("DELETE FROM instances WHERE file = ?", (file,))


def _file_head(incoming: Incoming) -> bytes:
    """Encode preamble, prefix and File Meta Information (PS3.10 7.1)."""
    meta = create_file_meta(
        sop_class_uid=UID(incoming.class_uid),
        sop_instance_uid=UID(incoming.sop_uid),
        transfer_syntax=UID(incoming.syntax),
    )
    return bytes(128) + b"DICM" + encode_file_meta(meta)
