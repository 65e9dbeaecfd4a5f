"""The whole gateway: what it is made of, how it starts, and how it ends without losing anything."""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from cxr_client import Client
from gateway.audit import Audit
from gateway.backpressure import Backpressure
from gateway.database import Database, DatabaseError
from gateway.deliver import Deliverer
from gateway.dimse_server import DimseServer
from gateway.hashing import SiteKey
from gateway.metrics import GatewayMetrics
from gateway.open_resources import OpenResources
from gateway.receive import Receiver
from gateway.recovery import recover
from gateway.retention import Housekeeper
from gateway.rules import fingerprint
from gateway.score import ScoringLoop
from gateway.settings import GatewaySettings
from gateway.spool import Spool

logger = logging.getLogger("gateway.node")


class _Part(Protocol):
    def stop(self) -> None:
        """End, whether it was started or not."""


P = TypeVar("P", bound=_Part)


@dataclass(frozen=True, slots=True)
class Node:
    """A running gateway."""

    parts: OpenResources
    receiver: Receiver
    server: DimseServer
    scorer: ScoringLoop
    deliverers: tuple[Deliverer, ...]
    housekeeper: Housekeeper

    @property
    def faults(self) -> list[str]:
        """Name the parts that have died."""
        parts = {
            "database": self.parts.database.is_sound,
            "listener": self.server.is_sound,
            "scorer": self.scorer.is_sound,
            "deliverer": all(one.is_sound for one in self.deliverers),
            "housekeeper": self.housekeeper.is_sound,
        }
        return [name for name, is_sound in parts.items() if not is_sound]


def database_path(settings: GatewaySettings) -> Path:
    """Return where the queue and the results lie."""
    return settings.node.folder / "gateway.sqlite"


def site_key_path(settings: GatewaySettings) -> Path:
    """Return where the site's secret lies."""
    return settings.node.folder / "site.key"


@contextmanager
def running_node(settings: GatewaySettings) -> Iterator[Node]:
    """Run the gateway until the block ends.

    Raises:
        OSError: a port is taken, or a file is missing.
        DatabaseError: the database can't be opened, or another gateway runs on the folder.
    """
    folder = settings.node.folder
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _holding(folder), _node_on(settings) as node:
        yield node


@contextmanager
def _holding(folder: Path) -> Iterator[None]:
    """Keep a second gateway away: its start would delete what the first is receiving."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise DatabaseError(f"{folder}: another gateway runs on this folder") from exc
        yield


@contextmanager
def _node_on(settings: GatewaySettings) -> Iterator[Node]:
    """Run a node; what was opened is closed in the opposite order, also if the start fails."""
    with ExitStack() as opened:
        parts = _open_resources(settings, opened)
        recover(parts.database, parts.spool, settings.destinations)
        node = _make_node(parts, opened)
        _start(node)
        logger.info("listening as %s on port %d", settings.node.ae_title, node.server.port)
        yield node


def _open_resources(settings: GatewaySettings, opened: ExitStack) -> OpenResources:
    node = settings.node
    key = SiteKey.load(site_key_path(settings))
    database = opened.enter_context(closing(Database(database_path(settings))))
    audit = Audit(node.folder / "audit.log", own_ae=node.ae_title, key=key, uids=node.audit_uids)
    opened.callback(audit.close)
    return OpenResources(
        settings, database, Spool(node.folder / "spool"), GatewayMetrics(), audit, key
    )


def _make_node(parts: OpenResources, opened: ExitStack) -> Node:
    """Make the parts of a node. The end stops receiving first, then asking, then sending."""
    settings = parts.settings
    housekeeper = _stopped_by(
        opened, Housekeeper(settings, parts.database, parts.spool, parts.metrics)
    )
    deliverers = tuple(_stopped_by(opened, Deliverer(parts, one)) for one in settings.destinations)
    client = opened.enter_context(open_client(settings))
    scorer = _stopped_by(opened, ScoringLoop(parts, client))
    receiver = Receiver(
        parts.database,
        parts.spool,
        Backpressure(settings.node, parts.spool, parts.database),
        parts.metrics,
        rules=fingerprint(settings.rules),
    )
    server = _stopped_by(opened, DimseServer(settings, receiver, parts.metrics))
    return Node(parts, receiver, server, scorer, deliverers, housekeeper)


def _stopped_by(opened: ExitStack, part: P) -> P:
    """Let a part be stopped when the stack closes; return the part."""
    opened.callback(part.stop)
    return part


def open_client(settings: GatewaySettings) -> Client:
    """Return a client that tries each request once: the table is the queue, not the client."""
    service = settings.service
    key = service.key_file.read_text().strip() if service.key_file else None
    return Client(service.url, key=key, timeout_s=service.timeout_seconds, patience_s=0)


def _start(node: Node) -> None:
    node.housekeeper.start()
    for deliverer in node.deliverers:
        deliverer.start()
    node.scorer.start()
    node.server.start()
