"""Audit lines: "DICOM Instances Transferred" by PS3.15 A.5.3.7, one XML message a line.

UIDs are hashed with the site's key unless the settings ask for plain ones. Nothing else of the
patient is in a line. docs/pacs.md says how to hand the file to an audit record repository.
"""

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element, SubElement, tostring

from gateway.hashing import SiteKey

_TRANSFERRED = ("110104", "DICOM Instances Transferred")
_SOURCE = ("110153", "Source Role ID")
_DESTINATION = ("110152", "Destination Role ID")
_STUDY_UID = ("110180", "Study Instance UID")


@dataclass(frozen=True, slots=True)
class Transfer:
    """One object that went from one node to another."""

    source: str
    destination: str
    study_uid: str
    sop_uid: str
    class_uid: str
    at: float
    """Seconds since 1970."""
    succeeded: bool = True


class Audit:
    """Appends lines to one file; a line is flushed when it is written."""

    def __init__(
        self, path: Path, *, own_ae: str, key: SiteKey, uids: Literal["hashed", "plain"]
    ) -> None:
        """Open the file for appending."""
        self._own_ae, self._key, self._uids = own_ae, key, uids
        self._lock = threading.Lock()
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

    def note(self, transfer: Transfer) -> None:
        """Write one line."""
        message = Element("AuditMessage")
        event = SubElement(
            message,
            "EventIdentification",
            EventActionCode="C",
            EventDateTime=datetime.fromtimestamp(transfer.at, UTC).isoformat(
                timespec="milliseconds"
            ),
            EventOutcomeIndicator="0" if transfer.succeeded else "8",
        )
        _code(event, "EventID", _TRANSFERRED)
        _participant(message, transfer.source, _SOURCE)
        _participant(message, transfer.destination, _DESTINATION)
        SubElement(message, "AuditSourceIdentification", AuditSourceID=self._own_ae)
        self._object(message, transfer)
        line = tostring(message, encoding="unicode")
        with self._lock:
            if not self._file.closed:
                self._file.write(f"{line}\n")

    def _object(self, message: Element, transfer: Transfer) -> None:
        study = SubElement(
            message,
            "ParticipantObjectIdentification",
            ParticipantObjectID=self._uid(transfer.study_uid),
            ParticipantObjectTypeCode="2",
            ParticipantObjectTypeCodeRole="3",
        )
        _code(study, "ParticipantObjectIDTypeCode", _STUDY_UID)
        description = SubElement(study, "ParticipantObjectDescription")
        sop_class = SubElement(
            description, "SOPClass", UID=transfer.class_uid, NumberOfInstances="1"
        )
        SubElement(sop_class, "Instance", UID=self._uid(transfer.sop_uid))

    def _uid(self, uid: str) -> str:
        return uid if self._uids == "plain" else self._key.hash(uid)


def _participant(message: Element, user: str, role: tuple[str, str]) -> None:
    participant = SubElement(message, "ActiveParticipant", UserID=user, UserIsRequestor="false")
    _code(participant, "RoleIDCode", role)


def _code(parent: Element, name: str, code: tuple[str, str]) -> None:
    value, meaning = code
    SubElement(parent, name, {"csd-code": value, "codeSystemName": "DCM", "originalText": meaning})
