"""An archive by DIMSE: C-STORE to store, C-FIND to ask (PS3.4 B and C)."""

from io import BytesIO

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from gateway.archive import DUPLICATE, ArchiveDown, Rejected, Stored, rejected
from gateway.associations import only_ask
from gateway.failpoints import failpoint
from gateway.settings import Destination
from gateway.tls import client_context

_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
"""Study Root Query/Retrieve Information Model - FIND."""

_RESULT_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.88.34",  # Comprehensive 3D SR
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture
)
_PENDING = (0xFF00, 0xFF01)
_WARNINGS = (0xB000, 0xB006, 0xB007)
"""Stored, though something of it was changed or left out."""


class DimseArchive:
    """One storage SCP. An association is kept while there is work, and never after a fault."""

    def __init__(self, destination: Destination, own_ae: str) -> None:
        """Prepare the association; nothing is sent yet. Raises `OSError` if a file is missing."""
        self._destination = destination
        self._context = client_context(destination.tls) if destination.tls else None
        self._entity = AE(own_ae)
        timeout_s = destination.timeout_seconds
        self._entity.acse_timeout = timeout_s
        self._entity.dimse_timeout = timeout_s
        self._entity.network_timeout = timeout_s
        self._entity.connection_timeout = timeout_s
        self._association: Association | None = None

    def store(self, content: bytes) -> None:
        """Store an object; raises `ArchiveDown` or `Rejected`."""
        dataset = dcmread(BytesIO(content))
        association = self._associate()
        try:
            answer = association.send_c_store(dataset)
        except ValueError as exc:  # the archive accepted no context for this class
            raise Rejected("no_context", may_pass=True) from exc
        except RuntimeError as exc:
            raise self._down("association_lost") from exc
        failpoint("send.answered")
        if "Status" not in answer:
            raise self._down("no_response")
        if answer.Status not in (0, DUPLICATE, *_WARNINGS):
            raise rejected(answer.Status)

    def holds(self, what: Stored) -> bool:
        """Ask whether the archive holds an object; raises `ArchiveDown` or `Rejected`."""
        query = Dataset()
        query.QueryRetrieveLevel = "IMAGE"
        query.StudyInstanceUID = what.study_uid
        query.SeriesInstanceUID = what.series_uid
        query.SOPInstanceUID = what.sop_uid
        association = self._associate()
        found = False
        try:
            for status, match in association.send_c_find(query, _FIND):
                if "Status" not in status:
                    raise self._down("no_response")
                if status.Status in _PENDING:
                    found |= match is not None and match.get("SOPInstanceUID") == what.sop_uid
                elif status.Status != 0:
                    raise Rejected(f"status_{status.Status:04X}", may_pass=True)
        except ValueError as exc:
            raise Rejected("no_context", may_pass=True) from exc
        except RuntimeError as exc:
            raise self._down("association_lost") from exc
        return found

    def rest(self) -> None:
        """Release the association until there is work again."""
        association, self._association = self._association, None
        if association is not None and association.is_established:
            association.release()

    def close(self) -> None:
        """Release the association."""
        self.rest()

    def _associate(self) -> Association:
        if self._association is not None and self._association.is_established:
            return self._association
        destination = self._destination
        assert destination.host is not None
        assert destination.port is not None
        assert destination.ae_title is not None
        contexts = [
            build_context(uid, syntax)
            for uid in _RESULT_CLASSES
            for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
        ]
        association = self._entity.associate(
            destination.host,
            destination.port,
            [*contexts, build_context(_FIND)],
            destination.ae_title,
            max_pdu=0,
            tls_args=(self._context, destination.host) if self._context else None,
        )
        if not association.is_established:
            word = "rejected" if association.is_rejected else "not_reached"
            raise ArchiveDown(f"association_{word}", nothing_sent=True)
        self._association = only_ask(association)
        return association

    def _down(self, reason: str) -> ArchiveDown:
        """Abort the association: a late answer would be taken for the next one's."""
        association, self._association = self._association, None
        if association is not None and association.is_established:
            association.abort()
        return ArchiveDown(reason)
