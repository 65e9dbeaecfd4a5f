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
from training.data.system_files import is_stub
from training.progress import progress_bar

CLASSES: dict[str, Label] = {"NORMAL": 0, "PNEUMONIA": 1}
SUFFIXES = frozenset({".jpeg", ".jpg", ".jfif", ".png", ".dcm", ".dicom"})
PARTS = ("train", "val", "test")

Purpose = Literal["train", "test", "explore"]

_PERSON = re.compile(r"person(\d+)_", re.IGNORECASE)
_IM = re.compile(r"(?:NORMAL2-)?IM-(\d+)-", re.IGNORECASE)


def find_roots(data_dir: Path, purpose: Purpose) -> tuple[Path, ...]:
    """Return the folders that hold the class folders, or none.

    They may lie in `data_dir`, in its parts (train, val, test), or all of that one level deeper.

    Raises:
        DataError: training finds only a test split, or several folders hold class folders.
    """
    base = _find_base(data_dir)
    if base is None:
        return ()
    if _holds_classes(base):
        return (base,)
    wanted = {"train": ("train", "val"), "test": ("test",), "explore": PARTS}[purpose]
    parts = {name: part for name in PARTS if (part := child(base, name)) and _holds_classes(part)}
    found = tuple(parts[name] for name in wanted if name in parts)
    if purpose == "train" and not found:
        raise DataError(
            f"{base} holds a test/ only; name that folder itself if you mean to train on it"
        )
    return found or tuple(parts.values())


def child(folder: Path, name: str) -> Path | None:
    """Return the folder of this name in any case, the exact one first; None if there is none."""
    exact = folder / name
    if exact.is_dir():
        return exact
    if not folder.is_dir():
        return None
    alike = (path for path in sorted(folder.iterdir()) if path.name.lower() == name.lower())
    return next((path for path in alike if path.is_dir()), None)


def _find_base(data_dir: Path) -> Path | None:
    if _holds_any(data_dir):
        return data_dir
    deeper = [
        path
        for path in sorted(data_dir.iterdir())
        if path.is_dir() and not is_stub(path) and _holds_any(path)
    ]
    if len(deeper) > 1:
        raise DataError(
            f"{data_dir} holds class folders in {', '.join(path.name for path in deeper)}; "
            f"name one of them"
        )
    return deeper[0] if deeper else None


def _holds_any(folder: Path) -> bool:
    """Tell whether a folder has class folders, or a part that has them."""
    parts = (child(folder, name) for name in PARTS)
    return _holds_classes(folder) or any(part and _holds_classes(part) for part in parts)


def load(data_dir: Path, roots: tuple[Path, ...]) -> DataIndex:
    """Index the class folders under `roots`. Raise `DataError` if a class has no image."""
    files = [
        (path, label)
        for root in roots
        for name, label in CLASSES.items()
        for path in sorted(_class_folder(root, name).iterdir())
        if not is_stub(path)
    ]
    images = [(path, label) for path, label in files if _is_image(path)]
    rows = [
        _row(path, data_dir, label)
        for path, label in progress_bar(iterable=images, desc="index", unit="file")
    ]
    unlisted = tuple(
        path.relative_to(data_dir).as_posix() for path, _ in files if not _is_image(path)
    )
    counts = {label: sum(row.label == label for row in rows) for label in CLASSES.values()}
    if not all(counts.values()):
        raise DataError(
            f"{data_dir}: a class folder holds no image ({', '.join(sorted(SUFFIXES))})"
        )
    return DataIndex(
        "class-folders", join_groups(sorted(rows, key=lambda row: row.path)), unlisted=unlisted
    )


def _is_image(path: Path) -> bool:
    """Tell whether a path may be an image: a pipe, a device and a dead link are none."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


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
    return all(child(folder, name) for name in CLASSES)


def _class_folder(root: Path, name: str) -> Path:
    found = child(root, name)
    assert found is not None
    return found


def _row(path: Path, data_dir: Path, label: Label) -> IndexRow:
    relative = path.relative_to(data_dir).as_posix()
    return IndexRow(
        image_id=path.stem,
        path=relative,
        sha256=file_sha256(path),
        person_group=person_group(path.stem),
        label=label,
    )
