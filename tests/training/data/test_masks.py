from pathlib import Path

import numpy as np
import pytest

from training.data.index import DataIndex, IndexRow
from training.data.masks import build_masks, map_masks, squeeze

SIZE = 32


def index_of(*names: str) -> DataIndex:
    rows = [
        IndexRow(
            image_id=name, path=f"{name}.dcm", sha256=f"{number:064x}", person_group=name, label=0
        )
        for number, name in enumerate(names)
    ]
    return DataIndex("siim", tuple(rows))


@pytest.fixture
def table_dir(tmp_path: Path) -> Path:
    """Two images: the left half of `b` is drawn in two pieces, and nothing of `a`."""
    quarter = 256 * 1024
    (tmp_path / "train-rle.csv").write_text(
        f"ImageId, EncodedPixels\nb,0 {quarter}\na,-1\nb,{quarter} {quarter}\n"
    )
    return tmp_path


def test_masks_lie_in_the_order_of_the_index_at_the_size_of_the_images(
    table_dir: Path, tmp_path: Path
) -> None:
    assert build_masks(index_of("a", "b"), [table_dir], tmp_path, SIZE)

    mask_NHW = map_masks(tmp_path, 2, SIZE)
    assert mask_NHW is not None
    assert not mask_NHW[0].any()
    assert (mask_NHW[1, :, : SIZE // 2] == 255).all()
    assert not mask_NHW[1, :, SIZE // 2 :].any()


def test_data_without_outlines_have_no_masks(tmp_path: Path) -> None:
    assert not build_masks(index_of("a"), [tmp_path], tmp_path, SIZE)
    assert map_masks(tmp_path, 1, SIZE) is None


def test_a_squeezed_mask_says_how_much_of_each_pixel_is_covered() -> None:
    stripes_HW = np.zeros((64, 64), dtype=np.bool_)
    stripes_HW[::2] = True

    assert set(squeeze(stripes_HW, SIZE).ravel().tolist()) <= {127, 128}
