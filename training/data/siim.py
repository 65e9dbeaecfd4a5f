"""The SIIM-ACR pneumothorax set: a tree of DICOM files and a table of run-length masks.

The table has one row a mask: an image without a pneumothorax has one row with `-1`, an image with
several has several.  Its two editions differ in a space before `EncodedPixels`. Files lie flat or
in study and series folders, and are always named after their ImageId.

In the public copies PatientID is a new UUID for each image, so it does not identify a person. A
`groups.csv` (ImageId, person_group) in the table's folder does, and is read automatically.  Real
trees hold more files than the table names (the test part, a second copy). Those files are listed
and not used.

Shape suffixes: H rows, W columns.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from cxr.bundle import file_sha256
from training.data.groups import read_groups
from training.data.index import DataError, DataIndex, IndexRow, join_groups, read_header, read_table
from training.data.system_files import data_files, is_stub
from training.progress import progress_bar

COLUMNS = frozenset({"ImageId", "EncodedPixels"})
NEGATIVE = "-1"
DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".dic"})
_OTHER_SUFFIXES = frozenset({".csv", ".png", ".jpg", ".jpeg", ".json", ".txt", ".md", ".zip"})
"""Endings of files that are not opened to see whether they are DICOM."""


def find_table(data_dir: Path) -> Path | None:
    """Return the mask table of a SIIM tree, found by its columns.

    The official download has several. A sample submission has no masks of its own. Of the others,
    one that repeats all images and masks of the rest is taken.

    Raises:
        DataError: several tables contradict each other.
    """
    tables = [
        path
        for path in sorted(data_dir.iterdir() if data_dir.is_dir() else ())
        if path.suffix.lower() == ".csv" and not is_stub(path) and _has_columns(path)
    ]
    if len(tables) > 1:
        tables = [path for path in tables if "submission" not in path.stem.lower()] or tables[:1]
    if len(tables) < 2:
        return tables[0] if tables else None
    masks = {path: read_runs(path) for path in tables}
    for path in tables:
        if all(masks[other].items() <= masks[path].items() for other in tables):
            return path
    raise DataError(
        f"{data_dir} holds several mask tables that differ: "
        f"{', '.join(path.name for path in tables)}; leave one"
    )


def load(data_dir: Path, table: Path) -> DataIndex:
    """Index a SIIM tree; images of the table without a file are listed in `missing`."""
    runs = read_runs(table)
    files, copies = _find_files(data_dir)
    groups = read_groups(data_dir / "groups.csv") if (data_dir / "groups.csv").is_file() else {}
    present = [image_id for image_id in runs if image_id in files]
    if not present:
        raise DataError(f"{data_dir}: no DICOM file is named after an ImageId of {table.name}")
    rows = [
        IndexRow(
            image_id=image_id,
            path=files[image_id].relative_to(data_dir).as_posix(),
            sha256=file_sha256(files[image_id]),
            person_group=groups.get(image_id) or _patient(files[image_id], image_id),
            label=1 if runs[image_id] else 0,
        )
        for image_id in progress_bar(iterable=present, desc="index", unit="file")
    ]
    missing = tuple(sorted(runs.keys() - files.keys()))
    strangers = [path for image_id, path in files.items() if image_id not in runs]
    unlisted = tuple(
        sorted(path.relative_to(data_dir).as_posix() for path in (*strangers, *copies))
    )
    return DataIndex("siim", join_groups(sorted(rows, key=lambda row: row.path)), missing, unlisted)


def read_runs(table: Path) -> dict[str, list[str]]:
    """Read the table as the run-length texts of each image; none for an image without a
    pneumothorax.

    Raise `DataError` for a row without a value, for a mask that is no run-length text, and for an
    image both with and without a mask.
    """
    rows: dict[str, list[str]] = {}
    for number, line in enumerate(read_table(table), start=2):
        if not line["ImageId"] or not line["EncodedPixels"]:
            raise DataError(
                f"{table} line {number} lacks a value; an image without a pneumothorax has "
                f"{NEGATIVE} for its mask"
            )
        if line["EncodedPixels"] != NEGATIVE:
            _refuse_no_pairs(line["EncodedPixels"], f"{table} line {number} ({line['ImageId']})")
        rows.setdefault(line["ImageId"], []).append(line["EncodedPixels"])
    runs = {
        image_id: [text for text in texts if text != NEGATIVE] for image_id, texts in rows.items()
    }
    for image_id, texts in rows.items():
        if runs[image_id] and NEGATIVE in texts:
            raise DataError(
                f"{table} has {image_id} both with a mask and with {NEGATIVE}; remove what is wrong"
            )
    return runs


def decode_runs(texts: Sequence[str], rows: int = 1024, columns: int = 1024) -> NDArray[np.bool_]:
    """Decode the run-length masks of one image into `mask_HW`.

    Each text lists pairs of gap and length; a gap counts from the end of the run before, and pixels
    are numbered down the columns.  Raise `DataError` if a text is no such list or leaves the image.
    """
    mask = np.zeros(rows * columns, dtype=np.bool_)
    for text in texts:
        for start, end in _spans(text, mask.size):
            mask[start:end] = True
    return mask.reshape(columns, rows).T


def _refuse_no_pairs(text: str, place: str) -> None:
    try:
        _spans(text)
    except DataError as exc:
        raise DataError(f"{place}: {exc}") from exc


def _spans(text: str, pixels: int | None = None) -> list[tuple[int, int]]:
    try:
        numbers = np.array(text.split(), dtype=np.int64).reshape(-1, 2)
    except (ValueError, OverflowError) as exc:
        raise DataError("a mask is no list of gap and length pairs") from exc
    edges = numbers.ravel().cumsum().reshape(-1, 2)
    if (numbers < 0).any() or (pixels is not None and len(edges) and edges[-1, 1] > pixels):
        raise DataError("a mask leaves its image")
    return [(int(start), int(end)) for start, end in edges]


def _has_columns(path: Path) -> bool:
    return path.is_file() and set(read_header(path)) >= COLUMNS


def _find_files(data_dir: Path) -> tuple[dict[str, Path], list[Path]]:
    """Find the DICOM files by image id, and separately further copies of the same file. Raise
    `DataError` if two different files have one name.
    """
    files: dict[str, Path] = {}
    copies: list[Path] = []
    for path in data_files(data_dir):
        image_id = _image_id(path)
        if image_id is None:
            continue
        first = files.setdefault(image_id, path)
        if first == path:
            continue
        if file_sha256(first) != file_sha256(path):
            raise DataError(f"{first} and {path} have one name and different content; remove one")
        copies.append(path)
    return files, copies


def _image_id(path: Path) -> str | None:
    """Return a DICOM file's name without its ending; None for other files.

    A file without an ending is known by its content. Its name may be a UID, whose last number looks
    like an ending.
    """
    if path.suffix.lower() in DICOM_SUFFIXES:
        return path.stem
    if path.suffix.lower() in _OTHER_SUFFIXES:
        return None
    with path.open("rb") as file:
        return path.name if file.read(132)[128:] == b"DICM" else None


def _patient(path: Path, image_id: str) -> str:
    """Name the patient of a file by a hash, so that no identity enters a run directory; an
    unreadable file is its own.
    """
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"])
        identity = str(header.get("PatientID", "") or image_id)
    except (OSError, pydicom.errors.InvalidDicomError):
        identity = image_id
    return f"patient-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
