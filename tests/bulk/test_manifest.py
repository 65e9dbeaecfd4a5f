from dataclasses import asdict
from pathlib import Path

import pytest

from bulk.archive_parts import ArchivePart, divide
from bulk.errors import BulkError
from bulk.manifest import ArchiveManifest, Entry, JobFile, hold
from bulk.score_to_parquet import score_part
from bulk.scoring_job import Job


def scored(job: Job, manifest: ArchiveManifest) -> list[ArchivePart]:
    """Score the archive in parts of two files, and commit them."""
    parts = list(divide(sorted(job.source.items()), 2, job.identity))
    for part in parts:
        manifest.commit(Entry(**asdict(score_part(job, part))))
    return parts


def fingerprints(job: Job) -> dict[str, str]:
    return {item.path: item.fingerprint for item in job.source.items()}


def test_a_later_run_knows_what_is_done(job: Job) -> None:
    with hold(job.folder) as manifest:
        scored(job, manifest)
    with hold(job.folder) as manifest:
        assert manifest.done(fingerprints(job)) == fingerprints(job).keys()


def test_a_line_that_a_crash_cut_off_does_not_count(job: Job) -> None:
    with hold(job.folder) as manifest:
        parts = scored(job, manifest)
    path = job.folder / "_manifest.jsonl"
    path.write_bytes(path.read_bytes()[:-5])

    with hold(job.folder) as manifest:
        assert {entry.part for entry in manifest.entries} == {part.name for part in parts[:-1]}
        manifest.commit(Entry(**asdict(score_part(job, parts[-1]))))
    with hold(job.folder) as manifest:
        assert len(manifest.entries) == len(parts)


def test_a_part_that_was_cut_short_is_made_again(job: Job) -> None:
    with hold(job.folder) as manifest:
        parts = scored(job, manifest)
        path = job.folder / parts[0].file_name
        path.write_bytes(path.read_bytes()[:-1])

        done = manifest.done(fingerprints(job))

    assert done == {item.path for part in parts[1:] for item in part.items}
    assert not path.exists()


def test_a_changed_file_is_scored_again_and_has_one_row(job: Job) -> None:
    with hold(job.folder) as manifest:
        parts = scored(job, manifest)
        changed = {**fingerprints(job), parts[1].items[0].path: "changed"}

        done = manifest.done(changed)

    assert done == {item.path for part in (parts[0], parts[2]) for item in part.items}


def test_a_file_that_the_source_did_not_give_is_tried_again(job: Job, archive: Path) -> None:
    known = fingerprints(job)
    with hold(job.folder) as manifest:
        parts = list(divide(sorted(job.source.items()), 2, job.identity))
        (archive / "a.dcm").unlink()
        manifest.commit(Entry(**asdict(score_part(job, parts[0]))))

        assert manifest.done(known) == frozenset()


def test_rows_of_files_that_left_the_source_stay(job: Job) -> None:
    with hold(job.folder) as manifest:
        scored(job, manifest)

        assert len(manifest.done({})) == 5


def test_strays_are_removed(job: Job) -> None:
    with hold(job.folder) as manifest:
        parts = scored(job, manifest)
        strays = [
            job.folder / name for name in ("part-0.parquet", ".part-1.parquet.draft", ".begun-2")
        ]
        for path in strays:
            path.write_bytes(b"left behind")

        manifest.remove_strays()

    assert not any(path.exists() for path in strays)
    assert all((job.folder / part.file_name).exists() for part in parts)


def test_a_second_run_at_once_is_refused_and_does_no_harm(job: Job) -> None:
    with hold(job.folder), pytest.raises(BulkError, match="another run"), hold(job.folder):
        pass


def test_answers_of_other_options_are_not_mixed(job: Job) -> None:
    with hold(job.folder) as manifest:
        manifest.check_job(JobFile(identity="one", part_files=64))

        with pytest.raises(BulkError, match="another --out"):
            manifest.check_job(JobFile(identity="other", part_files=64))


def test_the_size_of_parts_stays_what_it_was_at_the_first_run(job: Job) -> None:
    with hold(job.folder) as manifest:
        manifest.check_job(JobFile(identity="one", part_files=64))

        assert manifest.check_job(JobFile(identity="one", part_files=999)).part_files == 64
