from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from bulk import score_to_parquet
from bulk.archive_parts import divide
from bulk.score_to_parquet import MAX_DEATHS, Journal, score_part
from bulk.scoring_job import Job
from bulk.sources.dicomweb import DicomWebReader, DicomWebSource
from cxr.errors import BundleError


def test_a_part_has_a_row_for_each_file_in_order(job: Job) -> None:
    (part,) = divide(sorted(job.source.listing().items), 10, job.identity)

    result = score_part(job, part)

    rows = pq.read_table(job.folder / part.file_name).to_pylist()
    assert [row["path"] for row in rows] == [item.path for item in part.items]
    assert [row["problem"] for row in rows] == [None, None, None, None, "unsupported_format"]
    assert (result.rows, result.num_problems) == (5, 1)


def test_a_part_that_exists_is_not_made_again(job: Job) -> None:
    (part,) = divide(sorted(job.source.listing().items), 10, job.identity)
    first = score_part(job, part)
    made = (job.folder / part.file_name).stat().st_mtime_ns

    second = score_part(job, part)

    assert (job.folder / part.file_name).stat().st_mtime_ns == made
    assert second.model_copy(update={"seconds": first.seconds}) == first


def test_nothing_but_the_part_is_left_behind(job: Job) -> None:
    (part,) = divide(sorted(job.source.listing().items), 10, job.identity)

    score_part(job, part)

    assert [path.name for path in job.folder.iterdir()] == [part.file_name]


def test_a_file_that_has_gone_is_a_row_and_no_stop(job: Job) -> None:
    (part,) = divide(sorted(job.source.listing().items), 10, job.identity)
    (job.folder.parents[2] / "archive/a.dcm").unlink()

    score_part(job, part)

    assert pq.read_table(job.folder / part.file_name)["problem"][0].as_py() == "unreadable"


def test_a_worker_with_another_model_file_writes_nothing(job: Job) -> None:
    (part,) = divide(sorted(job.source.listing().items), 10, job.identity)

    with pytest.raises(BundleError, match="another one"):
        score_part(replace(job, identity="of another file"), part)


def test_the_journal_names_the_file_over_which_a_worker_died(job: Job) -> None:
    path = job.folder / ".begun-x"
    for _ in range(2):
        journal = Journal(path)
        for index in (0, 1, 2):
            journal.begin(index)
        journal.close()

    journal = Journal(path)
    journal.close()

    assert [journal.deaths(index) for index in range(4)] == [0, 0, 2, 0]


def test_the_journal_remembers_several_files(job: Job) -> None:
    path = job.folder / ".begun-x"
    for last in (5, 9, 5):
        journal = Journal(path)
        journal.begin(last)
        journal.close()

    journal = Journal(path)
    journal.close()

    assert (journal.deaths(5), journal.deaths(9)) == (2, 1)


def test_a_file_over_which_several_workers_died_is_given_up(job: Job) -> None:
    (part,) = divide(sorted(job.source.listing().items), 10, job.identity)
    for _ in range(MAX_DEATHS):
        journal = Journal(job.folder / f".begun-{part.name}")
        journal.begin(1)
        journal.close()

    score_part(job, part)

    problems = pq.read_table(job.folder / part.file_name)["problem"].to_pylist()
    assert problems == [None, "inference_failed", None, None, "unsupported_format"]


def test_a_worker_of_another_job_closes_the_connection_of_the_first(job: Job) -> None:
    first = score_to_parquet._open_worker(replace(job, source=DicomWebSource("http://127.0.0.1:1")))
    assert isinstance(first._reader, DicomWebReader)
    assert not first._reader._client.is_closed

    second = score_to_parquet._open_worker(job)

    assert first._reader._client.is_closed
    assert score_to_parquet._open_worker(job) is second
