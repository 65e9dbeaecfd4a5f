"""A bundle that was exported without a study gets the one that export would have written."""

import shutil
from pathlib import Path

import pytest

from cxr.bundle import read_bundle
from cxr.study_schema import Study
from training.__main__ import main
from training.bundle.add_figures import write_texts


def without_study(bundle_dir: Path, target: Path) -> Path:
    shutil.copytree(bundle_dir, target)
    manifest = read_bundle(target).manifest
    write_texts(target, manifest.model_copy(update={"study": None}))
    return target


def study_of(bundle_dir: Path) -> Study:
    study = read_bundle(bundle_dir).manifest.study
    assert study is not None
    return study


def test_the_study_is_that_of_the_export(bundle_dir: Path, films_dir: Path, tmp_path: Path) -> None:
    bundle = without_study(bundle_dir, tmp_path / "bundle")
    words = ["--data", str(films_dir), "--out", str(tmp_path / "out"), "--study", "--state"]

    assert main(["evaluate", str(bundle), *words]) == 0

    stated, exported = study_of(bundle), study_of(bundle_dir)
    assert stated.partitions == exported.partitions
    assert stated.errors == exported.errors
    assert [error.image for error in stated.surest_errors] == [
        error.image for error in exported.surest_errors
    ]
    assert "## Where it was wrong" in read_bundle(bundle).card


def test_another_folder_than_the_bundle_was_made_from_is_refused(
    bundle_dir: Path, films_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = without_study(bundle_dir, tmp_path / "bundle")
    fewer = shutil.copytree(films_dir, tmp_path / "films")
    next(path for path in sorted(fewer.rglob("*")) if path.is_file()).unlink()
    words = ["--data", str(fewer), "--out", str(tmp_path / "out"), "--study", "--state"]

    assert main(["evaluate", str(bundle), *words]) != 0
    assert "the folder that it was made from" in capsys.readouterr().err
    assert read_bundle(bundle).manifest.study is None


def test_a_bundle_that_does_not_say_what_it_learned_from_is_refused(
    bundle_dir: Path, films_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = without_study(bundle_dir, tmp_path / "bundle")
    (bundle / "splits.csv").unlink()
    words = ["--data", str(films_dir), "--out", str(tmp_path / "out"), "--study", "--state"]

    assert main(["evaluate", str(bundle), *words]) != 0
    assert "no splits.csv" in capsys.readouterr().err
