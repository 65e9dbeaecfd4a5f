"""Tell which layout a data folder has, and read it."""

from pathlib import Path
from typing import Literal

from training.datasets import class_folders, siim
from training.datasets.index import DataError, DataIndex

Purpose = Literal["train", "test"]

EXPECTED = (
    "expected either a SIIM tree (a folder with .dcm files at any depth and a .csv whose header is ImageId, EncodedPixels), "
    "or class folders (NORMAL/ and PNEUMONIA/ with .jpeg, .jpg, .png or .dcm files), "
    "or a folder that holds such class folders in train/ or test/"
)


def load_index(data_dir: Path, *, purpose: Purpose = "train") -> DataIndex:
    """Index a data folder of either layout; raises `DataError`.

    Where class folders lie in `train/`, `val/` and `test/`, training reads
    `train/` and `val/` and never `test/`; testing reads `test/` where it is there,
    and else what there is.
    """
    if not data_dir.is_dir():
        raise DataError(f"{data_dir} is no folder; {EXPECTED}")
    table = siim.find_table(data_dir)
    if table is not None:
        return siim.load(data_dir, table)
    roots = class_folders.find_roots(data_dir, purpose)
    if roots:
        return class_folders.load(data_dir, roots)
    raise DataError(f"{data_dir} holds neither layout; {EXPECTED}")
