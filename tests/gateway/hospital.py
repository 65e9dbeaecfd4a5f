"""A gateway and an archive that belong together, for tests from a sender to the archive."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pynetdicom import AE
from pynetdicom.presentation import build_context

from gateway.node import Node, running_node
from gateway.settings import GatewaySettings
from tests.gateway.peers import Shelf, stow_archive
from tests.gateway.settings import make_settings

RULE = {"name": "all", "model": "bright", "destinations": ["archive"]}


@dataclass
class Hospital:
    """A gateway and an archive that belong together."""

    folder: Path
    service_url: str
    shelf: Shelf = field(default_factory=Shelf)
    stack: ExitStack = field(default_factory=ExitStack)
    node: Node | None = None

    def open(self, **tables: Any) -> Node:
        """Start an archive by STOW-RS and a gateway."""
        url = self.stack.enter_context(stow_archive(self.shelf))
        return self.run(self.settings({"stow_url": url}, **tables))

    def settings(self, place: dict[str, Any], **tables: Any) -> GatewaySettings:
        """Settings with one destination."""
        archive = {"name": "archive", "settle_seconds": 0.05, "timeout_seconds": 10, **place}
        whole = {"destinations": [archive], "rules": [RULE], "service": {"url": self.service_url}}
        return make_settings(self.folder, **whole | tables)

    def run(self, settings: GatewaySettings) -> Node:
        """Start a gateway."""
        self.node = self.stack.enter_context(running_node(settings))
        return self.node

    def send(self, *films: Any) -> None:
        """Send films to the gateway."""
        assert self.node is not None
        entity = AE("SENDER")
        contexts = [build_context(uid) for uid in sorted({one.SOPClassUID for one in films})]
        place = ("127.0.0.1", self.node.server.port)
        association = entity.associate(*place, contexts, "CXRGATE")
        assert [association.send_c_store(one).Status for one in films] == [0] * len(films)
        association.release()

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Rows of the gateway's tables."""
        assert self.node is not None
        with self.node.parts.database.reading() as connection:
            return [dict(row) for row in connection.execute(query)]

    def states(self) -> list[str]:
        """States of all deliveries."""
        return [row["state"] for row in self.rows("SELECT state FROM deliveries ORDER BY id")]

    def reasons(self) -> list[tuple[str, str | None]]:
        """States and reasons of all instances."""
        rows = self.rows("SELECT state, reason FROM instances ORDER BY id")
        return [(row["state"], row["reason"]) for row in rows]
