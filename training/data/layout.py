"""Find the layout of a data folder, and read it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from training.data import class_folders, labels, nih, siim
from training.data.class_folders import Purpose
from training.data.groups import read_groups
from training.data.index import DataError, DataIndex, join_groups

EXPECTED = (
    "expected either a SIIM tree (a folder with .dcm files at any depth and a .csv whose header "
    "is ImageId, EncodedPixels), "
    "or class folders (NORMAL/ and PNEUMONIA/ with .jpeg, .jpg, .png or .dcm files), "
    "or a folder that holds such class folders in train/ or test/, "
    "or a folder with a labels.csv (columns file, the finding, person_group and more), "
    "or ChestX-ray14 (Data_Entry_2017*.csv next to images*/)"
)


def load_index(
    data_dir: Path,
    *,
    purpose: Purpose = "train",
    groups: Path | None = None,
    finding: str | None = None,
) -> DataIndex:
    """Index a data folder of any layout; raises `DataError`.

    If class folders lie in `train/`, `val/` and `test/`, training reads `train/` and `val/`, never
    `test/`. Testing reads `test/`, or all parts if there is none. Exploring reads all three.
    `groups` is a table (ImageId, person_group) of images that show one person, although their names
    do not state it. `finding` is the column to read if a table has several.
    """
    return load_indexes([data_dir], purpose=purpose, groups=groups, finding=finding)


def load_indexes(
    data_dirs: Sequence[Path],
    *,
    purpose: Purpose = "train",
    groups: Path | None = None,
    finding: str | None = None,
    weights: Sequence[float] = (),
) -> DataIndex:
    """Index several data folders as one, persons joined over all of them; raises `DataError`.

    A row's `folder` says which of them it lies in.  The index is named after the layouts. `weights`
    are of the folders, and multiply those of their images; all are 1 if none is given.
    """
    found = [_load(data_dir, purpose, finding) for data_dir in data_dirs]
    rows = [
        replace(row, folder=folder, source=row.source or index.name, weight=row.weight * weight)
        for folder, (index, weight) in enumerate(
            zip(found, weights or [1.0] * len(found), strict=True)
        )
        for row in index.rows
    ]
    joined = DataIndex(
        "+".join(dict.fromkeys(index.name for index in found)),
        join_groups(rows),
        tuple(name for index in found for name in index.missing),
        tuple(path for index in found for path in index.unlisted),
    )
    return joined if groups is None else _join_by_table(joined, groups, data_dirs)


def _join_by_table(index: DataIndex, groups: Path, data_dirs: Sequence[Path]) -> DataIndex:
    table = read_groups(groups)
    if not any(row.image_id in table for row in index.rows):
        raise DataError(
            f"{groups} names no image of {', '.join(map(str, data_dirs))}; an ImageId is a file's "
            f"name without its ending"
        )
    return replace(index, rows=join_groups(index.rows, table))


def _load(data_dir: Path, purpose: Purpose, finding: str | None) -> DataIndex:
    if not data_dir.is_dir():
        raise DataError(f"{data_dir} is no folder; {EXPECTED}")
    labelled = labels.find_table(data_dir)
    if labelled is not None:
        return labels.load(data_dir, labelled, finding)
    entries = nih.find_table(data_dir)
    if entries is not None:
        return nih.load(data_dir, entries, finding)
    table = siim.find_table(data_dir)
    if table is not None:
        return siim.load(data_dir, table)
    roots = class_folders.find_roots(data_dir, purpose)
    if roots:
        return class_folders.load(data_dir, roots)
    raise DataError(f"{data_dir} holds no known layout; {EXPECTED}")
