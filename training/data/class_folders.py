"""Class folders: NORMAL/ and PNEUMONIA/ with one image a file.

In the set of Kermany et al. 2018 the patient is in the file's name:
`person123_bacteria_456.jpeg`, `IM-0115-0001.jpeg`, `NORMAL2-IM-0115-0001.jpeg`.
Bacteria and virus were numbered apart, so one number may be two patients;
joining them costs nothing and can't leak.
"""

import re
from pathlib import Path
from typing import Literal

from cxr.bundle import file_sha256
from training.data.index import DataError, DataIndex, IndexRow, Label, join_groups
from training.progress import progress_bar

CLASSES: dict[str, Label] = {"NORMAL": 0, "PNEUMONIA": 1}
SUFFIXES = frozenset({".jpeg", ".jpg", ".png", ".dcm"})
PARTS = ("train", "val", "test")

Purpose = Literal["train", "test", "explore"]

_PERSON = re.compile(r"person(\d+)_", re.IGNORECASE)
_IM = re.compile(r"(?:NORMAL2-)?IM-(\d+)-", re.IGNORECASE)


def find_roots(data_dir: Path, purpose: Purpose) -> tuple[Path, ...]:
    """Return the folders that hold the class folders, or none. Raise `DataError` if training finds
    only a test split.
    """
    if _holds_classes(data_dir):
        return (data_dir,)
    wanted = {"train": ("train", "val"), "test": ("test",), "explore": PARTS}[purpose]
    found = tuple(data_dir / name for name in wanted if _holds_classes(data_dir / name))
    others = tuple(data_dir / name for name in PARTS if _holds_classes(data_dir / name))
    if purpose == "train" and others and not found:
        raise DataError(
            f"{data_dir} holds a test/ only; name that folder itself if you mean to train on it"
        )
    return found or others


def load(data_dir: Path, roots: tuple[Path, ...]) -> DataIndex:
    """Index the class folders under `roots`. Raise `DataError` if a class has no image."""
    files = [
        (path, label)
        for root in roots
        for name, label in CLASSES.items()
        for path in sorted((root / name).iterdir())
    ]
    images = [(path, label) for path, label in files if path.suffix.lower() in SUFFIXES]
    rows = [
        _row(path, data_dir, label)
        for path, label in progress_bar(iterable=images, desc="index", unit="file")
    ]
    unlisted = tuple(
        path.relative_to(data_dir).as_posix()
        for path, _ in files
        if path.suffix.lower() not in SUFFIXES
    )
    counts = {label: sum(row.label == label for row in rows) for label in CLASSES.values()}
    if not all(counts.values()):
        raise DataError(
            f"{data_dir}: a class folder holds no image ({', '.join(sorted(SUFFIXES))})"
        )
    return DataIndex(
        "class-folders", join_groups(sorted(rows, key=lambda row: row.path)), unlisted=unlisted
    )


def person_group(stem: str) -> str:
    """Return the patient that a file's name states; a name that states none is a patient of its
    own.
    """
    if match := _PERSON.match(stem):
        return f"person{int(match[1])}"
    if match := _IM.match(stem):
        return f"IM{int(match[1])}"
    return stem


def _holds_classes(folder: Path) -> bool:
    return all((folder / name).is_dir() for name in CLASSES)


def _row(path: Path, data_dir: Path, label: Label) -> IndexRow:
    relative = path.relative_to(data_dir).as_posix()
    return IndexRow(
        image_id=path.stem,
        path=relative,
        sha256=file_sha256(path),
        person_group=person_group(path.stem),
        label=label,
    )
