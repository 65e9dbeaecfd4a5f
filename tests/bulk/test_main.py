"""The command's exit codes and sentences, as far as they need no Ray."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bulk import read_results
from bulk.__main__ import INCOMPLETE, main
from bulk.archive_parts import divide
from bulk.manifest import hold
from bulk.score_to_parquet import score_part
from bulk.scoring_job import Job
from bulk.sources import open_source


def command(source: Path | str, store: Path, out: Path) -> list[str]:
    return [str(source), "--model", "bright", "--store", str(store), "--out", str(out)]


@pytest.fixture
def listed(job: Job, archive: Path, tmp_path: Path) -> Path:
    """A list of all files, each of which has an answer."""
    path = tmp_path / "list.txt"
    path.write_text("\n".join(map(str, archive.iterdir())))
    job = replace(job, source=open_source(str(path)))
    with hold(job.folder) as manifest:
        for part in divide(sorted(job.source.listing().items), 2, job.identity):
            manifest.commit(score_part(job, part))
    return path


def answers(out: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = read_results(out).to_table().sort_by("path").to_pylist()
    return rows


def test_a_run_that_has_nothing_to_do_ends_with_0(
    listed: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(listed, store, tmp_path / "out")) == 0
    assert "5 rows of 5 files in 3 parts; 0 are new" in capsys.readouterr().out


def test_answers_stay_while_a_share_is_away_and_the_exit_code_tells(
    listed: Path, archive: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    before = answers(out)
    archive.rename(tmp_path / "away")

    assert main(command(listed, store, out)) == INCOMPLETE
    assert "5 files could not be read now. What was known of them stays" in capsys.readouterr().out
    assert answers(out) == before
    (tmp_path / "away").rename(archive)
    assert main(command(listed, store, out)) == 0
    assert answers(out) == before


def test_a_link_that_leads_nowhere_now_makes_a_run_incomplete(
    listed: Path, archive: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (archive / "share").symlink_to("/nothing/here")
    os.mkfifo(archive / "pipe")

    assert main(command(archive, store, tmp_path / "out")) == INCOMPLETE
    said = capsys.readouterr().out
    assert "1 folders or links could not be followed now" in said
    assert "1 pipes, sockets or devices were passed over" in said


def test_a_bundle_in_the_folder_of_another_version_is_refused_as_the_service_refuses_it(
    archive: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(store / "bright/1", copy / "bright/2")

    assert main(command(archive, copy, tmp_path / "out")) == 1
    assert "names another model or version than its folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "case",
    [
        ("nothing", "out", "the source can't be read: No such file or directory"),
        ("empty", "out", "the source has no files"),
        ("archive", "archive/a.dcm", "choose a folder outside"),
        ("archive", "a file", "--out can't be used: Not a directory"),
        ("archive", "/sys/answers", "--out can't be used"),
    ],
)
@pytest.mark.usefixtures("archive")
def test_what_the_person_can_mend_is_a_sentence_and_exit_code_1(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: tuple[str, str, str]
) -> None:
    source, out, reason = case
    (tmp_path / "empty").mkdir()
    (tmp_path / "a file").write_bytes(b"")

    assert main(command(tmp_path / source, store, tmp_path / out)) == 1
    said = capsys.readouterr()
    assert reason in said.err
    assert said.out == ""
