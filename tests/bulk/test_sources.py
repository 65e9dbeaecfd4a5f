import os
import socket
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bulk.archive_parts import NOT_FOUND, Item
from bulk.errors import BulkError, SourceUnreadable
from bulk.sources import FolderSource, open_source
from bulk.sources.files import ListReader
from bulk.sources.retry import ATTEMPTS, Attempts

MAX_BYTES = 2**20


def test_a_folder_gives_every_file_but_hidden_ones(archive: Path) -> None:
    (archive / "deep").mkdir()
    (archive / "deep/f.dcm").write_bytes(b"1")
    (archive / ".hidden").write_bytes(b"1")
    (archive / ".folder").mkdir()
    (archive / ".folder/g.dcm").write_bytes(b"1")

    names = sorted(Path(item.path).name for item in open_source(str(archive)).listing().items)

    assert names == ["a.dcm", "b.dcm", "c.dcm", "d.png", "e.txt.bin", "f.dcm"]


def test_a_file_is_read_whole(archive: Path) -> None:
    source = open_source(str(archive))
    reader = source.reader()

    assert {item.path: reader.read(item, MAX_BYTES) for item in source.listing().items} == {
        str(path): path.read_bytes() for path in archive.iterdir()
    }


def test_a_changed_file_has_another_fingerprint(archive: Path) -> None:
    before = {item.path: item.fingerprint for item in open_source(str(archive)).listing().items}
    (archive / "a.dcm").write_bytes(b"changed")

    after = {item.path: item.fingerprint for item in open_source(str(archive)).listing().items}

    assert {path for path in after if after[path] != before[path]} == {str(archive / "a.dcm")}


def test_a_zipped_archive_is_read_in_place(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as packed:
        for path in archive.iterdir():
            packed.write(path, f"inside/{path.name}")
    source = open_source(f"zip://inside::{tmp_path}/archive.zip")

    items = list(source.listing().items)

    assert len(items) == 5
    first = min(items)
    assert source.reader().read(first, MAX_BYTES) == (archive / Path(first.path).name).read_bytes()


def test_a_tar_file_may_hold_names_that_are_not_utf_8(archive: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "archive.tar", "w") as packed:
        packed.add(archive / "a.dcm", "inside/a\udcff.dcm")
    source = open_source(f"tar://inside::{tmp_path}/archive.tar")

    (item,) = source.listing().items

    assert item.path == "file://inside/a%FF.dcm"
    assert source.reader().read(item, MAX_BYTES) == (archive / "a.dcm").read_bytes()


def names(source: str | Path) -> list[str]:
    return sorted(item.path for item in open_source(str(source)).listing().items)


def listed(tmp_path: Path, content: bytes) -> list[str]:
    (tmp_path / "list.txt").write_bytes(content)
    return names(tmp_path / "list.txt")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_list_names_files_one_a_line(
    archive: Path, tmp_path: Path, encoding: str, end: str
) -> None:
    lines = [
        f"{archive}/a.dcm",
        "# comment",
        "\t# comment",
        "",
        f" {archive}/d.png",
        f"{archive}/a.dcm",
    ]

    found = listed(tmp_path, end.join(lines).encode(encoding))

    assert found == [f"{archive}/a.dcm", f"{archive}/d.png"]
    source = open_source(str(tmp_path / "list.txt"))
    item = min(source.listing().items)
    assert source.reader().read(item, MAX_BYTES) == (archive / "a.dcm").read_bytes()


def test_one_file_by_several_names_is_listed_once(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(archive)
    lines = [str(archive / "a.dcm"), f"file://{archive}/a.dcm", "a.dcm", "./a.dcm", "FILE://a.dcm"]

    items = {*listed(tmp_path, "\n".join(lines).encode())}

    assert items == {str(archive / "a.dcm")}


ODD_NAMES = (
    b"\xe9t\xe9.dcm",  # Latin-1
    b"a::b.dcm",
    b"zip::a.dcm",
    b"100%25.dcm",
    "\u2028 \x85.dcm".encode(),
    b"#no comment.dcm",
    b"~.dcm",
    b"a\nb.dcm",
    b"a\\xff.dcm",
)


def test_a_name_is_read_whatever_letters_it_has(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for number, name in enumerate(ODD_NAMES):
        (folder / os.fsdecode(name)).write_bytes(bytes([number]))
    source = open_source(str(folder))
    items = source.listing().items

    read = [source.reader().read(item, MAX_BYTES) for item in items]

    assert sorted(read) == [bytes([number]) for number in range(len(ODD_NAMES))]
    assert f"file://{folder}/%E9t%E9.dcm" in {item.path for item in items}
    assert all(item.path.encode() for item in items)  # Parquet takes UTF-8 alone


def test_a_list_may_hold_any_name_as_a_run_writes_it(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in ODD_NAMES:
        (folder / os.fsdecode(name)).write_bytes(b"1")
    paths = [path for path in names(folder) if "\n" not in path]
    source = open_source(str(tmp_path / "list.txt"))

    assert listed(tmp_path, "\n".join(paths).encode()) == paths
    assert listed(tmp_path, os.fsencode(folder) + b"/\xe9t\xe9.dcm") == [
        f"file://{folder}/%E9t%E9.dcm"
    ]
    (item,) = source.listing().items
    assert source.reader().read(item, MAX_BYTES) == b"1"


def test_a_list_of_another_encoding_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BulkError, match="UTF-8"):
        listed(tmp_path, "/archive/a.dcm".encode("utf-16"))


def test_a_url_whose_package_is_missing_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BulkError, match="package"):
        listed(tmp_path, b"adl://bucket/a.dcm")
    with pytest.raises(BulkError, match="package"):
        names("adl://bucket")
    with pytest.raises(BulkError, match="package"):
        ListReader().read(Item("adl://bucket/a.dcm", "1"), MAX_BYTES)


@pytest.mark.parametrize("line", ["/nothing.dcm", "nosuchprotocol://x", "/a\udc80", "memory://no"])
def test_a_listed_file_that_is_missing_can_not_be_read(tmp_path: Path, line: str) -> None:
    (tmp_path / "list.txt").write_bytes(line.encode(errors="surrogateescape"))
    source = open_source(str(tmp_path / "list.txt"))

    (item,) = source.listing().items

    assert item.fingerprint == NOT_FOUND
    with pytest.raises(SourceUnreadable):
        source.reader().read(item, MAX_BYTES)


@pytest.fixture
def special(archive: Path) -> Iterator[Path]:
    """A pipe, a socket and a link to a device beside the files of the archive."""
    os.mkfifo(archive / "pipe.dcm")
    (archive / "device.dcm").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(archive / "socket.dcm"))
        yield archive


def test_what_is_neither_file_nor_folder_is_passed_over_and_counted(special: Path) -> None:
    listing = open_source(str(special)).listing()

    assert len(listing.items) == 5
    assert listing.num_passed_over == 3


@pytest.mark.parametrize("name", ["pipe.dcm", "socket.dcm", "device.dcm"])
def test_a_listed_pipe_can_not_be_read_and_stops_nothing(special: Path, name: str) -> None:
    item = Item(str(special / name), "1")

    with pytest.raises(SourceUnreadable):
        ListReader().read(item, MAX_BYTES)


def test_a_linked_folder_is_followed_and_each_folder_read_once(archive: Path) -> None:
    elsewhere = archive.parent / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "deep/f.dcm").write_bytes(b"1")
    (archive / "0 link").symlink_to(elsewhere)
    (archive / "1 the same").symlink_to(elsewhere / "deep")
    (archive / "2 circle").symlink_to(archive)
    (elsewhere / "back").symlink_to(archive)
    (archive / "z.dcm").symlink_to(archive / "a.dcm")

    listing = open_source(str(archive)).listing()

    assert len(listing.items) == 7
    assert f"{archive}/0 link/deep/f.dcm" in {item.path for item in listing.items}
    assert listing.num_unlisted == 0


def test_a_linked_file_has_changed_if_its_target_has(archive: Path) -> None:
    (archive / "link.dcm").symlink_to(archive / "a.dcm")

    (link,) = open_source(str(archive / "link.dcm")).listing().items
    (target,) = open_source(str(archive / "a.dcm")).listing().items

    assert (link.fingerprint, link.num_bytes) == (target.fingerprint, target.num_bytes)


def test_a_link_that_leads_nowhere_is_counted_and_is_no_file(archive: Path) -> None:
    (archive / "share").symlink_to("/nothing/here")

    listing = open_source(str(archive)).listing()

    assert (len(listing.items), listing.num_unlisted) == (5, 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_folder_that_can_not_be_listed_is_counted(archive: Path) -> None:
    (archive / "closed").mkdir(mode=0)

    assert open_source(str(archive)).listing().num_unlisted == 1


def test_no_more_of_a_file_is_read_than_may_be(archive: Path) -> None:
    path = archive / "a.dcm"

    assert len(open_source(str(archive)).reader().read(Item(str(path), "1"), 100)) == 101


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("nothing-here", "No such file"),
        ("missing.txt", "No such file"),
        ("file:///%00", "no path"),
        ("nosuchprotocol://x", "can't be listed"),
        ("zip://x::/nothing.zip", "can't be listed"),
    ],
)
def test_a_source_that_is_not_there_is_said_in_a_sentence(source: str, reason: str) -> None:
    with pytest.raises(BulkError, match=reason):
        open_source(source).listing()


def test_a_folder_for_answers_inside_the_source_is_found(archive: Path, tmp_path: Path) -> None:
    assert FolderSource(archive).holds(archive / "out")
    assert not FolderSource(archive).holds(tmp_path / "out")


class Flaky:
    """A source that fails as often as it is told, and counts how often it is asked."""

    def __init__(self, num_failures: int) -> None:
        self.num_failures = num_failures
        self.num_asked = 0

    def read(self) -> bytes:
        self.num_asked += 1
        if self.num_failures:
            self.num_failures -= 1
            raise OSError
        return b"data"


def test_a_source_that_fails_twice_is_tried_again() -> None:
    attempt = Attempts(lambda error: False, first_pause_s=0.0)

    assert attempt(Flaky(2).read) == b"data"


def test_a_source_that_says_that_a_file_is_gone_is_asked_once() -> None:
    source = Flaky(1)

    with pytest.raises(SourceUnreadable):
        Attempts(lambda error: True)(source.read)
    assert source.num_asked == 1


def test_a_source_that_is_away_is_asked_once_a_file_until_it_answers() -> None:
    attempt = Attempts(lambda error: False, first_pause_s=0.0)
    source = Flaky(3 * ATTEMPTS + 10)
    for _ in range(3 + 10):
        with pytest.raises(SourceUnreadable):
            attempt(source.read)
    assert source.num_failures == 0

    assert attempt(source.read) == b"data"
    assert attempt(Flaky(2).read) == b"data"
