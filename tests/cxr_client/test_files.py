"""What stands in a folder beside radiographs never ends the command and never makes it wait."""

import csv
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cxr_client.__main__ import UNFINISHED, main
from cxr_client.files import Unreadable, find_files
from tests.factories import chest, make_png
from tests.server import Server, running_server


@pytest.fixture(scope="module")
def server(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real service with the made model."""
    log = tmp_path_factory.mktemp("service") / "log"
    with running_server(store, log, default_model="bright", decode_workers=1) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with one radiograph, a dead link, a link in a circle, a pipe and a socket."""
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.png").write_bytes(make_png(chest(64, 64)))
    (folder / "dead.dcm").symlink_to(tmp_path / "gone.dcm")
    (folder / "circle.dcm").symlink_to(folder / "circle.dcm")
    os.mkfifo(folder / "pipe.dcm")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket.dcm"))
    return folder


def reasons(folder: Path) -> dict[str, str]:
    found = find_files([folder], done=())
    return {entry.path.name: entry.reason for entry in found if isinstance(entry, Unreadable)}


def test_each_entry_that_is_no_file_is_named(folder: Path) -> None:
    assert reasons(folder) == {
        "dead.dcm": "dangling link",
        "circle.dcm": "dangling link",
        "pipe.dcm": "no regular file",
        "socket.dcm": "no regular file",
    }


def test_a_link_to_a_file_is_followed(folder: Path) -> None:
    (folder / "linked.png").symlink_to(folder / "a.png")
    found = [entry for entry in find_files([folder], done=()) if isinstance(entry, Path)]
    assert [path.name for path in found] == ["a.png", "linked.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_locked_folder_and_a_locked_file_are_named(folder: Path) -> None:
    (folder / "locked").mkdir(mode=0)
    (folder / "secret.png").touch(mode=0)
    assert reasons(folder).keys() >= {"locked", "secret.png"}


def test_a_pipe_named_on_the_command_line_is_not_opened(folder: Path) -> None:
    (entry,) = find_files([folder / "pipe.dcm"], done=())
    assert isinstance(entry, Unreadable)


def test_the_table_has_a_line_for_each_and_the_answer_of_the_radiograph(
    server: Server, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.csv"
    command = ["predict", str(folder), "--url", server.url, "--csv", str(out)]
    assert main(command) == UNFINISHED
    written = out.read_text()
    codes = {Path(row["file"]).name: row["code"] for row in csv.DictReader(written.splitlines())}
    unreadable = ("dead.dcm", "circle.dcm", "pipe.dcm", "socket.dcm")
    assert codes == {"a.png": "", **dict.fromkeys(unreadable, "unreadable")}
    assert "dead.dcm: dangling link" in capsys.readouterr().err
    assert main(command) == UNFINISHED
    assert out.read_text() == written


def test_an_entry_that_became_readable_is_sent(
    server: Server, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    command = ["predict", str(folder), "--url", server.url, "--csv", str(out)]
    main(command)
    (tmp_path / "gone.dcm").write_bytes(make_png(chest(64, 64)))
    main(command)
    table = csv.DictReader(out.read_text().splitlines())
    lines = [row for row in table if row["file"].endswith("dead.dcm")]
    assert [line["code"] for line in lines] == ["unreadable", ""]
