"""Radiographs for the archive's tests: real files in five transfer syntaxes, each in a study."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
)

from tests.factories import encode_frame

SYNTAXES: tuple[tuple[UID, str], ...] = (
    (JPEGBaseline8Bit, "-xy"),
    (ExplicitVRLittleEndian, "-xe"),
    (JPEGLosslessSV1, "-xs"),
    (JPEGLSLossless, "-xt"),
    (JPEG2000Lossless, "-xv"),
)
"""Transfer syntaxes, and the option by which storescu proposes each."""


@dataclass(frozen=True)
class Film:
    """A radiograph on disk."""

    path: Path
    option: str
    study_uid: str
    sop_uid: str


def write_films(source: Path, folder: Path, count: int) -> list[Film]:
    """Write radiographs, five syntaxes in turn.

    The real files are taken in turn; a further round gets UIDs of its own, so that each file has
    a study, a series and an instance that no other has.
    """
    originals = sorted(source.glob("siim/dicom-images-train/*/*/*.dcm"))
    assert originals
    films: list[Film] = []
    for number in range(count):
        syntax, option = SYNTAXES[number % len(SYNTAXES)]
        dataset = dcmread(originals[number % len(originals)])
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            if number >= len(originals):
                uid = getattr(dataset, keyword)[:55].rstrip(".")
                setattr(dataset, keyword, f"{uid}.{number}")
        path = folder / option.strip("-") / f"{number:04d}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_in(dataset, syntax, path)
        films.append(Film(path, option, str(dataset.StudyInstanceUID), str(dataset.SOPInstanceUID)))
    return films


def write_in(dataset: Dataset, syntax: UID, path: Path) -> None:
    """Write a real file's pixels in another transfer syntax, losslessly."""
    if syntax != JPEGBaseline8Bit:
        pixels = np.ascontiguousarray(dataset.pixel_array)
        if syntax == ExplicitVRLittleEndian:
            dataset.PixelData = pixels.tobytes()
        else:
            dataset.PixelData = encapsulate([encode_frame(pixels, syntax)])
        dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)


def send(films: Sequence[Film], port: int, caller: str = "SENDER1") -> bool:
    """Send files with storescu, an association for each syntax; returns whether all were taken."""
    by_option: dict[str, list[str]] = {}
    for film in films:
        by_option.setdefault(film.option, []).append(str(film.path))
    taken = [_storescu(option, paths, port, caller) for option, paths in by_option.items()]
    return all(taken)


def _storescu(option: str, paths: list[str], port: int, caller: str) -> bool:
    command = ["storescu", option, "-to", "120", "-ta", "120", "-td", "300", "-aet", caller]
    target = ["-aec", "CXRGATE", "127.0.0.1", str(port)]
    done = subprocess.run(
        [*command, *target, *paths], check=False, capture_output=True, timeout=1500
    )
    return done.returncode == 0
