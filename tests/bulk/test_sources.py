import zipfile
from pathlib import Path

import pytest

from bulk.archive_parts import Item
from bulk.errors import BulkError, SourceUnreadable
from bulk.sources import open_source
from bulk.sources.files import is_inside
from bulk.sources.retry import attempt

MAX_BYTES = 2**20


def test_a_folder_gives_every_file_but_hidden_ones(archive: Path) -> None:
    (archive / "deep").mkdir()
    (archive / "deep/f.dcm").write_bytes(b"1")
    (archive / ".hidden").write_bytes(b"1")

    names = sorted(Path(item.path).name for item in open_source(str(archive)).items())

    assert names == ["a.dcm", "b.dcm", "c.dcm", "d.png", "e.txt.bin", "f.dcm"]


def test_a_file_is_read_whole(archive: Path) -> None:
    source = open_source(str(archive))
    reader = source.reader()

    assert {item.path: reader.read(item, MAX_BYTES) for item in source.items()} == {
        str(path): path.read_bytes() for path in archive.iterdir()
    }


def test_a_changed_file_has_another_fingerprint(archive: Path) -> None:
    before = {item.path: item.fingerprint for item in open_source(str(archive)).items()}
    (archive / "a.dcm").write_bytes(b"changed")

    after = {item.path: item.fingerprint for item in open_source(str(archive)).items()}

    assert {path for path in after if after[path] != before[path]} == {str(archive / "a.dcm")}


def test_a_zipped_archive_is_read_in_place(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as packed:
        for path in archive.iterdir():
            packed.write(path, f"inside/{path.name}")
    source = open_source(f"zip://inside::{tmp_path}/archive.zip")

    items = list(source.items())

    assert len(items) == 5
    first = min(items)
    assert source.reader().read(first, MAX_BYTES) == (archive / Path(first.path).name).read_bytes()


def test_a_list_names_files_one_a_line(archive: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"# comment\n{archive}/a.dcm\n\n{archive}/d.png\n{archive}/a.dcm\n")
    source = open_source(str(listed))

    items = list(source.items())

    assert [item.path for item in items] == [f"{archive}/a.dcm", f"{archive}/d.png"]
    assert source.reader().read(items[0], MAX_BYTES) == (archive / "a.dcm").read_bytes()


def test_a_listed_file_that_is_missing_can_not_be_read(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"{tmp_path}/nothing.dcm\n")
    source = open_source(str(listed))

    (item,) = source.items()
    with pytest.raises(SourceUnreadable):
        source.reader().read(item, MAX_BYTES)


def test_no_more_of_a_file_is_read_than_may_be(archive: Path) -> None:
    path = archive / "a.dcm"

    assert len(open_source(str(archive)).reader().read(Item(str(path), "1"), 100)) == 101


@pytest.mark.parametrize(
    "source", ["nothing-here", "list-that-is-missing.txt", "nosuchprotocol://x"]
)
def test_a_source_that_is_not_there_is_said_in_a_sentence(source: str) -> None:
    with pytest.raises(BulkError):
        list(open_source(source).items())


def test_a_folder_for_answers_inside_the_source_is_found(archive: Path, tmp_path: Path) -> None:
    assert is_inside(archive / "out", str(archive))
    assert not is_inside(tmp_path / "out", str(archive))


def test_a_source_that_fails_twice_is_tried_again() -> None:
    failures = [OSError(), OSError()]

    def read() -> bytes:
        if failures:
            raise failures.pop()
        return b"data"

    assert attempt(read, is_final=lambda error: False, first_pause_s=0.0) == b"data"


def test_a_source_that_says_that_a_file_is_gone_is_asked_once() -> None:
    asked = []

    def read() -> bytes:
        asked.append(1)
        raise FileNotFoundError

    with pytest.raises(SourceUnreadable):
        attempt(read, is_final=lambda error: True)
    assert len(asked) == 1
