"""One real service with the bundles that the repository ships, for all promises that cross
files."""

from collections.abc import Iterator

import httpx
import pytest

from tests.server import ROOT, Server, running_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service as `make serve` starts it."""
    with running_server(ROOT / "model_store", tmp_path_factory.mktemp("service") / "log") as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """A client of that service."""
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield client
