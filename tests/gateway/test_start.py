"""A gateway that can't start leaves nothing open behind it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.node import running_node
from tests.gateway.settings import make_settings

NOWHERE = Path("/nowhere/at/all")
ARCHIVE = {"name": "archive", "stow_url": "http://127.0.0.1:1"}
NO_TLS = {"tls": {"certificate": NOWHERE, "key": NOWHERE, "peers_ca": NOWHERE}}


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port of the loopback on which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


def open_files(folder: Path) -> list[Path]:
    """The files in a folder that this process has open."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.append(descriptor.readlink())
    return [path for path in found if path.is_relative_to(folder)]


def assert_nothing_is_left_open(folder: Path, **tables: Any) -> None:
    """Fail to start a gateway, and look at files and threads."""
    threads = set(threading.enumerate())
    with pytest.raises(OSError), running_node(make_settings(folder, **tables)):  # noqa: PT011
        pass
    assert open_files(folder) == []
    assert set(threading.enumerate()) <= threads


def test_a_key_of_the_service_that_is_missing_leaves_nothing_open(tmp_path: Path) -> None:
    assert_nothing_is_left_open(tmp_path, service={"key_file": NOWHERE})


def test_a_certificate_for_an_archive_that_is_missing_leaves_nothing_open(tmp_path: Path) -> None:
    second = ARCHIVE | NO_TLS | {"name": "second"}
    assert_nothing_is_left_open(tmp_path, destinations=[ARCHIVE, second])


def test_a_port_that_is_taken_leaves_nothing_open(tmp_path: Path, taken_port: int) -> None:
    assert_nothing_is_left_open(tmp_path, destinations=[ARCHIVE], node={"port": taken_port})
