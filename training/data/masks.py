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


def build_masks(
    index: DataIndex, data_dirs: Sequence[Path], folder: Path, size: int
) -> tuple[int, ...]:
    """Write the masks of a cache's images, squeezed as the images are.

    Images of a folder without masks get empty ones.

    Returns:
        The data folders that have masks, by number; nothing is written if none has.
    """
    tables = {number: siim.find_table(path) for number, path in enumerate(data_dirs)}
    runs = {number: siim.read_runs(table) for number, table in tables.items() if table}
    if not runs:
        return ()
    empty = np.zeros((size, size), dtype=np.uint8)
    draft = folder / f"{_FILE}.draft"
    with draft.open("wb") as file:
        for row in index.rows:
            texts = runs[row.folder][row.image_id] if row.folder in runs else []
            mask_HW = squeeze(siim.decode_runs(texts), size) if texts else empty
            file.write(mask_HW.tobytes())
    draft.replace(folder / _FILE)
    return tuple(runs)


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
