import resource
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bulk import read_results
from bulk.archive_parts import NOT_FOUND, ArchivePart, Item, divide
from bulk.errors import BulkError
from bulk.manifest import ArchiveManifest, Entry, JobFile, Remaining, hold
from bulk.score_to_parquet import score_part
from bulk.scoring_job import Job


def scored(job: Job, manifest: ArchiveManifest) -> list[ArchivePart]:
    """Score the archive in parts of two files, and commit them."""
    parts = list(divide(sorted(job.source.listing().items), 2, job.identity))
    for part in parts:
        manifest.commit(score_part(job, part))
    return parts


def remaining(job: Job, manifest: ArchiveManifest) -> Remaining:
    return manifest.remaining(job.source.listing().items, job.identity)


def problems(job: Job) -> dict[str, str | None]:
    """The problem codes of all rows that a reader finds, by file name."""
    rows = read_results(job.folder).to_table(columns=["path", "problem"]).to_pylist()
    found = {Path(row["path"]).name: row["problem"] for row in rows}
    assert len(found) == len(rows)
    return found


GOOD = {"a.dcm": None, "b.dcm": None, "c.dcm": None, "d.png": None}
ALL = {**GOOD, "e.txt.bin": "unsupported_format"}


def test_a_later_run_knows_what_is_done(job: Job) -> None:
    with hold(job.folder) as manifest:
        scored(job, manifest)
    with hold(job.folder) as manifest:
        assert remaining(job, manifest) == Remaining([], [], 0)


def test_a_line_that_a_crash_cut_off_does_not_count(job: Job) -> None:
    with hold(job.folder) as manifest:
        parts = scored(job, manifest)
    path = job.folder / "_manifest.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    assert problems(job) == GOOD

    with hold(job.folder) as manifest:
        assert {entry.part for entry in manifest.entries} == {part.name for part in parts[:-1]}
        manifest.commit(score_part(job, parts[-1]))
    with hold(job.folder) as manifest:
        assert len(manifest.entries) == len(parts)


@pytest.mark.parametrize("spoilt", [b"\xff\xfe", b"{}", b'{"part": 3}', b"\0\0\0\0"])
def test_a_spoilt_line_costs_its_part_and_no_other(job: Job, spoilt: bytes) -> None:
    with hold(job.folder) as manifest:
        parts = scored(job, manifest)
    path = job.folder / "_manifest.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], spoilt, lines[2]]) + b"\n")
    with pytest.raises(BulkError, match="makes them again"):
        read_results(job.folder)

    with hold(job.folder) as manifest:
        assert remaining(job, manifest).new == list(parts[1].items)
        manifest.commit(score_part(job, parts[1]))

    assert problems(job) == ALL


def cut(content: bytes) -> bytes:
    return content[:-1]


def turn_a_bit(content: bytes) -> bytes:
    return content[:50] + bytes([content[50] ^ 1]) + content[51:]


def empty(content: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("spoil", [cut, turn_a_bit, empty, None])
def test_a_part_that_is_spoilt_is_made_again(job: Job, spoil: object) -> None:
    with hold(job.folder) as manifest:
        parts = scored(job, manifest)
        path = job.folder / parts[0].file_name
        if callable(spoil):
            path.write_bytes(spoil(path.read_bytes()))
        else:
            path.unlink()

        assert remaining(job, manifest).new == list(parts[0].items)
        manifest.commit(score_part(job, parts[0]))

    assert problems(job) == ALL


def test_a_changed_file_is_scored_again_and_has_one_row(job: Job, archive: Path) -> None:
    with hold(job.folder) as manifest:
        parts = scored(job, manifest)
        (archive / "c.dcm").write_bytes(b"")
        rest = remaining(job, manifest)
        (renewed,) = rest.renewed
        assert rest.new == []
        assert [Path(item.path).name for item in renewed.items] == ["c.dcm"]
        assert renewed.replaces == parts[1].name
        entry = score_part(job, renewed)
        assert problems(job) == ALL  # until the new part counts

        manifest.commit(entry)

        assert problems(job) == {**ALL, "c.dcm": "malformed_request"}
        manifest.remove_strays()
    assert not (job.folder / parts[1].file_name).exists()
    assert problems(job) == {**ALL, "c.dcm": "malformed_request"}
    with hold(job.folder) as manifest:
        assert remaining(job, manifest) == Remaining([], [], 0)


def test_an_answer_stays_if_the_source_can_say_nothing_of_its_file(job: Job) -> None:
    with hold(job.folder) as manifest:
        scored(job, manifest)
        away = [Item(item.path, NOT_FOUND) for item in job.source.listing().items]

        assert manifest.remaining(away, job.identity) == Remaining([], [], 5)
    assert problems(job) == ALL


def test_an_answer_stays_if_its_file_has_changed_and_can_not_be_read(
    job: Job, archive: Path
) -> None:
    with hold(job.folder) as manifest:
        scored(job, manifest)
        listed = [
            Item(item.path, "changed" if item.path.endswith("a.dcm") else item.fingerprint)
            for item in job.source.listing().items
        ]
        (renewed,) = manifest.remaining(listed, job.identity).renewed
        (archive / "a.dcm").unlink()

        entry = score_part(job, renewed)

    assert (entry.rows, entry.num_unreadable) == (0, 1)
    assert problems(job) == ALL


def test_only_the_file_that_could_not_be_read_is_tried_again(job: Job, archive: Path) -> None:
    listed = job.source.listing().items
    content = (archive / "a.dcm").read_bytes()
    (archive / "a.dcm").unlink()
    with hold(job.folder) as manifest:
        (part,) = divide(sorted(listed), 10, job.identity)
        manifest.commit(score_part(job, part))
        assert problems(job) == {**ALL, "a.dcm": "unreadable"}
        (renewed,) = manifest.remaining(listed, job.identity).renewed
        assert [Path(item.path).name for item in renewed.items] == ["a.dcm"]
        assert score_part(job, renewed).rows == 0  # as long as it can't be read, nothing is written
        (archive / "a.dcm").write_bytes(content)

        (renewed,) = remaining(job, manifest).renewed
        manifest.commit(score_part(job, renewed))

        assert problems(job) == ALL
        assert remaining(job, manifest) == Remaining([], [], 0)


def test_rows_of_files_that_left_the_source_stay(job: Job) -> None:
    with hold(job.folder) as manifest:
        scored(job, manifest)

        assert manifest.remaining([], job.identity) == Remaining([], [], 0)
    assert problems(job) == ALL


def test_two_rows_of_a_file_after_damage_become_one(job: Job, archive: Path) -> None:
    with hold(job.folder) as manifest:
        parts = scored(job, manifest)
        before = manifest.entries
        (archive / "c.dcm").write_bytes(b"")
        (renewed,) = remaining(job, manifest).renewed
        after = score_part(job, renewed)
    lines = [entry.model_copy(update={"replaces": ""}) for entry in (*before, after)]
    (job.folder / "_manifest.jsonl").write_text(
        "".join(f"{entry.model_dump_json()}\n" for entry in lines)
    )

    with hold(job.folder) as manifest:
        assert remaining(job, manifest) == Remaining([], [], 0)

    assert problems(job) == {**ALL, "c.dcm": "malformed_request"}
    assert parts[1].name not in {entry.part for entry in manifest.entries}


def test_strays_are_removed_and_files_of_others_are_not(job: Job) -> None:
    number = 32 * "0"
    with hold(job.folder) as manifest:
        parts = scored(job, manifest)
        strays = [
            job.folder / name
            for name in (
                f"part-{number}.parquet",
                f".part-{number}.parquet.{number}",
                f"._manifest.jsonl.{number}",
                f".begun-{number}",
            )
        ]
        others = [
            job.folder / name
            for name in ("part-0.parquet", "part-00000-c0ffee.snappy.parquet", ".part-1", "notes")
        ]
        for path in (*strays, *others):
            path.write_bytes(b"left behind")

        manifest.remove_strays()

    assert not any(path.exists() for path in strays)
    assert all(path.exists() for path in others)
    assert all((job.folder / part.file_name).exists() for part in parts)
    assert problems(job) == ALL


def test_what_a_killed_run_wrote_is_used_if_it_is_wanted(job: Job) -> None:
    parts = list(divide(sorted(job.source.listing().items), 2, job.identity))
    journal = job.folder / parts[1].journal_name
    score_part(job, parts[0])
    journal.write_text("0\n")

    with hold(job.folder) as manifest:
        manifest.remove_strays(parts[:2])

    assert (job.folder / parts[0].file_name).exists()
    assert journal.exists()


def test_a_part_that_a_killed_run_left_spoilt_is_made_again(job: Job) -> None:
    (part,) = divide(sorted(job.source.listing().items), 10, job.identity)
    (job.folder / part.file_name).write_bytes(b"PAR1")

    assert score_part(job, part).rows == 5
    assert pq.read_table(job.folder / part.file_name).num_rows == 5


def test_a_reader_sees_no_part_that_is_not_noted(job: Job) -> None:
    with hold(job.folder) as manifest:
        parts = list(divide(sorted(job.source.listing().items), 2, job.identity))
        manifest.commit(score_part(job, parts[0]))
        score_part(job, parts[1])

    assert problems(job) == {"a.dcm": None, "b.dcm": None}


def test_a_reader_of_two_model_versions_must_choose_one(job: Job) -> None:
    with hold(job.folder) as manifest:
        scored(job, manifest)
    other = job.folder.with_name("version=2")
    out = job.folder.parent.parent
    assert read_results(out).count_rows() == 5
    with hold(other):
        (other / "_manifest.jsonl").write_text("")

    with pytest.raises(BulkError, match="version=2"):
        read_results(out)
    assert read_results(job.folder).count_rows() == 5
    assert read_results(other).count_rows() == 0


def test_a_second_run_at_once_is_refused_and_does_no_harm(job: Job) -> None:
    with hold(job.folder), pytest.raises(BulkError, match="another run"), hold(job.folder):
        pass


def test_answers_of_other_options_are_not_mixed(job: Job) -> None:
    with hold(job.folder) as manifest:
        manifest.check_job(JobFile(identity="one", part_files=64))

        with pytest.raises(BulkError, match="another --out"):
            manifest.check_job(JobFile(identity="other", part_files=64))


def test_a_spoilt_job_file_is_said_in_a_sentence(job: Job) -> None:
    (job.folder / "_job.json").write_bytes(b"\xff")
    with hold(job.folder) as manifest, pytest.raises(BulkError, match="restore it or choose"):
        manifest.check_job(JobFile(identity="one", part_files=64))


def test_the_size_of_parts_stays_what_it_was_at_the_first_run(job: Job) -> None:
    with hold(job.folder) as manifest:
        manifest.check_job(JobFile(identity="one", part_files=64))

        assert manifest.check_job(JobFile(identity="one", part_files=999)).part_files == 64


@pytest.mark.parametrize("out", ["a file", "/sys/answers", "/proc/answers", "/dev/null/answers"])
def test_a_folder_that_can_not_be_used_is_said_in_a_sentence(tmp_path: Path, out: str) -> None:
    (tmp_path / "a file").write_bytes(b"")

    with pytest.raises(BulkError, match="--out can't be used"), hold(tmp_path / out):
        pass


@pytest.fixture
def no_space() -> Iterator[None]:
    """Let no file grow beyond a few bytes, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_part_that_does_not_fit_on_the_disk_is_said_in_a_sentence(
    job: Job, request: pytest.FixtureRequest
) -> None:
    (part,) = divide(sorted(job.source.listing().items), 10, job.identity)
    with hold(job.folder) as manifest:
        request.getfixturevalue("no_space")

        with pytest.raises(BulkError, match="--out can't be used"):
            score_part(job, part)
        with pytest.raises(BulkError, match="--out can't be used"):
            manifest.commit(Entry(part="x", rows=5))

    assert not (job.folder / part.file_name).exists()
    assert manifest.entries == ()


def test_a_line_that_did_not_fit_on_the_disk_does_not_count(
    job: Job, request: pytest.FixtureRequest
) -> None:
    with hold(job.folder) as manifest:
        scored(job, manifest)
        request.getfixturevalue("no_space")
        with pytest.raises(BulkError):
            manifest.commit(Entry(part="x", rows=5))

    assert problems(job) == ALL
