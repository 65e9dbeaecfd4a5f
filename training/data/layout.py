"""Tell which layout a data folder has, and read it."""

from dataclasses import replace
from pathlib import Path

from training.data import class_folders, siim
from training.data.class_folders import Purpose
from training.data.groups import read_groups
from training.data.index import DataError, DataIndex, join_groups

EXPECTED = (
    "expected either a SIIM tree (a folder with .dcm files at any depth and a .csv whose header "
    "is ImageId, EncodedPixels), "
    "or class folders (NORMAL/ and PNEUMONIA/ with .jpeg, .jpg, .png or .dcm files), "
    "or a folder that holds such class folders in train/ or test/"
)


def load_index(
    data_dir: Path, *, purpose: Purpose = "train", groups: Path | None = None
) -> DataIndex:
    """Index a data folder of either layout; raises `DataError`.

    Where class folders lie in `train/`, `val/` and `test/`, training reads
    `train/` and `val/` and never `test/`; testing reads `test/` where it is there,
    and else what there is; exploring reads all three.  `groups` is a table of
    persons (ImageId, person_group) that joins what the layout's own names keep apart.
    """
    index = _load(data_dir, purpose)
    if groups is None:
        return index
    table = read_groups(groups)
    if not any(row.image_id in table for row in index.rows):
        raise DataError(
            f"{groups} names no image of {data_dir}; an ImageId is a file's name without its ending"
        )
    return replace(index, rows=join_groups(index.rows, table))


def _load(data_dir: Path, purpose: Purpose) -> DataIndex:
    if not data_dir.is_dir():
        raise DataError(f"{data_dir} is no folder; {EXPECTED}")
    table = siim.find_table(data_dir)
    if table is not None:
        return siim.load(data_dir, table)
    roots = class_folders.find_roots(data_dir, purpose)
    if roots:
        return class_folders.load(data_dir, roots)
    raise DataError(f"{data_dir} holds neither layout; {EXPECTED}")
