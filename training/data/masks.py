"""Segmentation masks of the cached images: how much of each pixel the finding covers.

    cache/masks.u8      one mask an image, in the order and at the size of images.u8

Shape suffixes: N images, H rows, W columns.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data import siim
from training.data.index import DataIndex

_FILE = "masks.u8"


def build_masks(index: DataIndex, data_dir: Path, folder: Path, size: int) -> bool:
    """Write the masks of the cached images, squeezed like the images. Return whether the data have
    any.
    """
    masks = read_masks([row.image_id for row in index.rows], data_dir, size)
    if masks is None:
        return False
    draft = folder / f"{_FILE}.draft"
    with draft.open("wb") as file:
        for mask_HW in masks:
            file.write(mask_HW.tobytes())
    draft.replace(folder / _FILE)
    return True


def read_masks(
    image_ids: Sequence[str], data_dir: Path, size: int
) -> Iterator[NDArray[np.uint8]] | None:
    """Return the mask of each image, squeezed to `mask_HW`; None if the data have none."""
    table = siim.find_table(data_dir)
    if table is None:
        return None
    runs = siim.read_runs(table)
    return (squeeze(siim.decode_runs(runs[image_id]), size) for image_id in image_ids)


def map_masks(folder: Path, count: int, size: int) -> NDArray[np.uint8] | None:
    """Map `mask_NHW` read only: 0 for an uncovered pixel, 255 for a fully covered one. Return None
    if there are no masks.
    """
    path = folder / _FILE
    return (
        np.memmap(path, dtype=np.uint8, mode="r", shape=(count, size, size))
        if path.is_file()
        else None
    )


def squeeze(mask_HW: NDArray[np.bool_], size: int) -> NDArray[np.uint8]:
    """Average a mask down to a square, as `cxr.preprocess` does with the picture under it."""
    full = Image.fromarray(mask_HW.astype(np.uint8) * 255)
    return np.asarray(full.resize((size, size), Image.Resampling.BOX))
