"""A made bundle, and an archive of files of several kinds."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit

from bulk.scoring_job import Job, Options, choose_bundle, make_job
from bulk.sources import open_source
from tests.bundles import write_made_bundle
from tests.factories import chest, make_dicom, make_png


@pytest.fixture(autouse=True)
def full_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ray's workers be no nicer than the tests: on a busy machine they would hardly run."""
    monkeypatch.setenv("RAY_worker_niceness", "0")


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose model `bright` has version 1."""
    path = tmp_path_factory.mktemp("store")
    write_made_bundle(path, "bright", 1)
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A folder with a baseline JPEG, a raw 12-bit, a JPEG 2000, a PNG and a file that is none."""
    folder = tmp_path / "archive"
    folder.mkdir()
    deep = chest().astype(np.uint16) * 16
    files = {
        "a.dcm": make_dicom(chest(), syntax=JPEGBaseline8Bit),
        "b.dcm": make_dicom(deep, BitsStored=12, HighBit=11),
        "c.dcm": make_dicom(deep, syntax=JPEG2000Lossless, BitsStored=12, HighBit=11),
        "d.png": make_png(chest(seed=1)),
        "e.txt.bin": b"no radiograph",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def job(store: Path, archive: Path, tmp_path: Path) -> Job:
    """A run over the archive."""
    made = make_job(
        open_source(str(archive)), choose_bundle(store, "bright", None), tmp_path / "out", Options()
    )
    made.folder.mkdir(parents=True)
    return made
