"""Training and serving read an image by one way: the same bytes give the same tensor, bit for
bit."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from app.inference.decoders import Preparation
from cxr.decode import DecodeLimits
from cxr.decode_and_preprocess import prepare
from cxr.preprocess import PreprocessSpec
from tests.factories import chest, make_dicom, make_jpeg, make_png
from training.data.cache import build_cache, map_cache
from training.data.layout import load_index

SIZE = 128

FILES = {
    "IM-0001-0001.jpeg": make_jpeg(chest(300, 500)),
    "IM-0002-0001.png": make_png(chest(512, 512)),
    "IM-0003-0001.jpg": make_jpeg(np.repeat(chest(257, 311)[..., None], 3, axis=2)),
}


def test_the_same_bytes_give_the_same_tensor_in_training_and_serving(tmp_path: Path) -> None:
    for name in ("NORMAL", "PNEUMONIA"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for name, data in FILES.items():
        (tmp_path / "data/NORMAL" / name).write_bytes(data)
    (tmp_path / "data/PNEUMONIA/person1_virus_1.jpeg").write_bytes(
        make_jpeg(chest(400, 400, seed=9))
    )

    index, refused = build_cache(
        load_index(tmp_path / "data"), [tmp_path / "data"], tmp_path / "cache", SIZE
    )
    trained_NHW = map_cache(tmp_path / "cache", len(index), SIZE)
    assert refused == ()
    assert len(index) == len(FILES) + 1
    for row, trained_HW in zip(index.rows, trained_NHW, strict=True):
        np.testing.assert_array_equal(
            served((tmp_path / "data" / row.path).read_bytes()), trained_HW
        )


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, RLELossless, JPEG2000Lossless])
def test_whether_a_picture_is_wanted_does_not_change_the_tensor(syntax: UID) -> None:
    data = make_dicom(chest(1024, 1024), syntax=syntax)
    np.testing.assert_array_equal(served(data), served(data, preview_side=512))


def served(data: bytes, *, preview_side: int | None = None) -> NDArray[np.uint8]:
    """The tensor that the service makes of an upload."""
    return prepare(
        data, Preparation(PreprocessSpec(size=SIZE), DecodeLimits(), "refuse", preview_side)
    ).image_HW
