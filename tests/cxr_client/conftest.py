"""The store that the client's tests are served from."""

from pathlib import Path

import pytest

from tests.bundles import write_made_bundle


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose model `bright` has version 1."""
    path = tmp_path_factory.mktemp("store")
    write_made_bundle(path, "bright", 1)
    return path
