"""A whole hospital in small: senders, the gateway, the service and an archive, all real."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pacs.archive import Archive
from tests.pacs.films import Film, write_films
from tests.pacs.node import Gateway
from tests.pacs.service import RunningService

FILMS = 200


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """The service with the shipped bundles."""
    service = RunningService(tmp_path_factory.mktemp("service") / "run")
    service.start()
    yield service
    service.stop()


@pytest.fixture(scope="session")
def films(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Film]:
    """Two hundred radiographs in five transfer syntaxes, each in a study of its own."""
    return write_films(test_data, tmp_path_factory.mktemp("films"), FILMS)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """An empty Orthanc."""
    archive = Archive(tmp_path / "orthanc")
    archive.start()
    yield archive
    archive.stop()


MakeGateway = Callable[..., Gateway]


@pytest.fixture
def make_gateway(
    tmp_path: Path, service: RunningService, archive: Archive
) -> Iterator[MakeGateway]:
    """Make gateways between the service and the archive; they are not started yet."""
    made: list[Gateway] = []

    def make(*, by_dimse: bool = False, **more: Any) -> Gateway:
        dimse = {"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": archive.dicom_port}
        place = dimse if by_dimse else {"stow_url": archive.stow_url}
        options = {
            "service_url": service.url,
            "destinations": [{"name": "archive", **place}],
            "rules": [{"name": "all", "destinations": ["archive"]}],
            **more,
        }
        made.append(Gateway(tmp_path / f"gateway{len(made)}", **options))
        return made[-1]

    yield make
    for gateway in made:
        gateway.kill()
