"""A store with one made model, and files to send to it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.app.fake_graph import FakeGraph
from tests.app.serving import Served, serving
from tests.bundles import write_made_bundle
from tests.factories import chest, make_dicom, make_png


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The service runs on asyncio, and so do its tests."""
    return "asyncio"


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose model `bright` has version 1."""
    path = tmp_path_factory.mktemp("store")
    write_made_bundle(path, "bright", 1)
    return path


@pytest.fixture
def graph() -> FakeGraph:
    """A graph that is as slow and as bad as the test says."""
    return FakeGraph()


@pytest.fixture(scope="session")
def png() -> bytes:
    """A drawn chest as a PNG."""
    return make_png(chest())


@pytest.fixture(scope="session")
def dicom() -> bytes:
    """A drawn chest as an uncompressed DICOM file of a man of 58 years, PA."""
    return make_dicom(
        chest(), PatientAge="058Y", PatientSex="M", ViewPosition="PA", PatientName="SECRET^PATIENT"
    )


@pytest.fixture(scope="module")
async def served(store: Path) -> AsyncIterator[Served]:
    """The service with its default settings, for tests of one file that leave it as it was."""
    async with serving(store) as served:
        yield served
