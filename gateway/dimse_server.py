"""The DICOM node as SCP: C-ECHO and C-STORE, for peers that are on the list."""

import logging
import threading
from collections import defaultdict
from ipaddress import ip_address
from typing import Any
from weakref import WeakSet

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from gateway.associations import Listener, listen, wait_for_events
from gateway.failpoints import failpoint
from gateway.metrics import GatewayMetrics
from gateway.presentation_contexts import SYNTAXES
from gateway.receive import CANNOT_UNDERSTAND, OUT_OF_RESOURCES, Incoming, Receiver, RefusedInstance
from gateway.settings import GatewaySettings, Peer
from gateway.tls import server_context

_REQUEST_WITHIN_S = 10.0
"""How long a new connection may take to ask for an association."""

_PDU_HEAD_BYTES = 64
"""More than what a P-DATA-TF PDU holds besides its fragment (PS3.8 9.3.5)."""

_SUCCESS = 0x0000
_PERMANENT, _TRANSIENT = 1, 2
_BY_USER, _BY_PRESENTATION = 1, 3
_CALLER_UNKNOWN, _CALLED_UNKNOWN, _LIMIT_EXCEEDED = 3, 7, 2
"""Results, sources and reasons of A-ASSOCIATE-RJ (PS3.8 9.3.4)."""

logger = logging.getLogger("gateway.dimse")


class DimseServer:
    """Listens for associations; start it, and stop it at the end."""

    def __init__(
        self, settings: GatewaySettings, receiver: Receiver, metrics: GatewayMetrics
    ) -> None:
        """Prepare the node; nothing listens yet."""
        self._node, self._receiver, self._metrics = settings.node, receiver, metrics
        self._peers = {peer.ae_title: peer for peer in settings.peers}
        self._named = settings.named_callers
        self._lock = threading.Lock()
        self._by_peer: defaultdict[tuple[str, str], set[Association]] = defaultdict(set)
        self._unanswered_bytes: dict[Association, int] = {}
        self._too_large: WeakSet[Association] = WeakSet()
        self._max_message_bytes = self._node.max_instance_mb * 1_000_000
        self._server: Listener | None = None

    @property
    def port(self) -> int:
        """Port on which the node listens."""
        assert self._server is not None
        return int(self._server.server_address[1])

    @property
    def is_sound(self) -> bool:
        """Whether the thread lives that accepts associations."""
        return self._server is not None and self._server.is_sound

    @property
    def associations(self) -> list[Association]:
        """Associations that are open now."""
        with self._lock:
            return [one for places in self._by_peer.values() for one in places]

    def start(self) -> None:
        """Listen; raises `OSError` if the port is taken."""
        self._server = listen(
            self._entity(),
            (self._node.host, self._node.port),
            server_context(self._node.tls) if self._node.tls else None,
            [
                (evt.EVT_CONN_OPEN, self._on_connected),
                (evt.EVT_CONN_CLOSE, self._on_closed),
                (evt.EVT_PDU_RECV, self._on_pdu),
                (evt.EVT_REQUESTED, self._on_requested),
                (evt.EVT_C_STORE, self._store),
                (evt.EVT_DIMSE_SENT, _on_responded),
            ],
        )

    def stop(self) -> None:
        """Abort what is open, and stop listening."""
        if self._server is not None:
            self._server.shutdown()

    def _entity(self) -> AE:
        entity = AE(self._node.ae_title)
        entity.maximum_pdu_size = 0
        entity.maximum_associations = 10_000  # our own limits are checked when one is asked for
        entity.network_timeout = self._node.idle_seconds
        entity.acse_timeout = _REQUEST_WITHIN_S
        entity.dimse_timeout = self._node.idle_seconds
        entity.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(str(context.abstract_syntax), list(SYNTAXES))
        return entity

    def _on_requested(self, event: evt.Event) -> None:
        """Reject whoever is not on the list, comes from another address, or has too many."""
        association = event.assoc
        request = association.requestor.primitive
        caller = str(request.calling_ae_title or "").strip() if request else ""
        called = str(request.called_ae_title or "").strip() if request else ""
        address = str(association.requestor.address or "")
        verdict = self._verdict(caller, called, address)
        if verdict is None and not self._take_place(association, caller, address):
            verdict = (_TRANSIENT, _BY_PRESENTATION, _LIMIT_EXCEEDED), "limit"
        if verdict is not None:
            (result, source, reason), word = verdict
            self._metrics.associations_refused.labels(word).inc()
            logger.warning("an association was rejected: %s", word)
            association.acse.send_reject(result, source, reason)
            evt.trigger(association, evt.EVT_REJECTED, {})
            association.is_rejected = True
            association.kill()

    def _verdict(
        self, caller: str, called: str, address: str
    ) -> tuple[tuple[int, int, int], str] | None:
        if called != self._node.ae_title:
            return (_PERMANENT, _BY_USER, _CALLED_UNKNOWN), "called"
        peer = self._peers.get(caller)
        if peer is None:
            if self._node.accept_any_peer:
                return None
            return (_PERMANENT, _BY_USER, _CALLER_UNKNOWN), "caller"
        if not _is_at(peer, address):
            return (_PERMANENT, _BY_USER, _CALLER_UNKNOWN), "address"
        return None

    def _take_place(self, association: Association, caller: str, address: str) -> bool:
        """Count an association for its peer; returns whether there was room."""
        with self._lock:
            places = self._by_peer[caller, address]
            total = sum(map(len, self._by_peer.values()))
            if len(places) >= self._node.max_associations_per_peer:
                return False
            if total >= self._node.max_associations:
                return False
            places.add(association)
            self._metrics.associations.set(total + 1)
            return True

    def _on_connected(self, event: evt.Event) -> None:
        wait_for_events(
            event.assoc,
            silence_s=self._node.idle_seconds,
            max_bytes=self._max_message_bytes + _PDU_HEAD_BYTES,
            on_too_large=self._metrics.refused.labels("too_large").inc,
        )

    def _on_closed(self, event: evt.Event) -> None:
        with self._lock:
            for peer, places in list(self._by_peer.items()):
                places.discard(event.assoc)
                if not places:
                    del self._by_peer[peer]
            self._unanswered_bytes.pop(event.assoc, None)
            self._metrics.associations.set(sum(map(len, self._by_peer.values())))

    def _on_pdu(self, event: evt.Event) -> None:
        """Abort an association if one message of it grows over the limit."""
        if not isinstance(event.pdu, P_DATA_TF):
            return
        with self._lock:
            size = self._unanswered_bytes.get(event.assoc, 0) + event.pdu.pdu_length
            self._unanswered_bytes[event.assoc] = size
        if size > self._max_message_bytes and event.assoc not in self._too_large:
            self._too_large.add(event.assoc)
            self._metrics.refused.labels("too_large").inc()
            event.assoc.abort(block=False)

    def _store(self, event: evt.Event) -> int:
        """Answer one C-STORE request once its instance is durable."""
        caller = str(event.assoc.requestor.ae_title).strip()
        with self._lock:
            self._unanswered_bytes.pop(event.assoc, None)
        if event.assoc in self._too_large:
            return OUT_OF_RESOURCES  # never read: the association is being aborted
        try:
            incoming = _incoming(event, caller if caller in self._named else "other")
            self._receiver.admit(incoming)
        except RefusedInstance as refused:
            return refused.status
        except UnicodeDecodeError:
            return CANNOT_UNDERSTAND
        except Exception as exc:  # the sender keeps the instance, and tries again
            logger.error("an instance could not be taken: %s", type(exc).__name__)  # noqa: TRY400
            return OUT_OF_RESOURCES
        return _SUCCESS


def _on_responded(event: evt.Event) -> None:
    if type(event.message).__name__ == "C_STORE_RSP":
        failpoint("receive.responded")


def _incoming(event: evt.Event, source_ae: str) -> Incoming:
    request: Any = event.request
    return Incoming(
        class_uid=str(request.AffectedSOPClassUID),
        sop_uid=str(request.AffectedSOPInstanceUID),
        syntax=str(event.context.transfer_syntax),
        data_set=request.DataSet.getvalue() if request.DataSet else b"",
        source_ae=source_ae,
    )


def _is_at(peer: Peer, address: str) -> bool:
    """Tell whether a peer may call from an address; from all if its entry names none."""
    if not peer.addresses:
        return True
    try:
        place = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(place, "ipv4_mapped", None)
    return any((mapped or place) in network for network in peer.addresses)
