import numpy as np
import pytest
from numpy.typing import NDArray

from training.evaluation.corruptions import CORRUPTIONS, corrupted


@pytest.fixture
def image_HW() -> NDArray[np.uint8]:
    """A disc with a soft edge, off centre, on a dark ground, with a fine grain."""
    row_HW, column_HW = np.mgrid[:72, :72]
    grain_HW = 10 * ((row_HW + column_HW) % 2)
    image_HW: NDArray[np.uint8] = np.clip(
        220 - 6 * np.hypot(row_HW - 30, column_HW - 40) + grain_HW, 20, 200
    ).astype(np.uint8)
    return image_HW


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corrupted_copy_keeps_shape_and_type_and_is_another_picture(
    name: str, image_HW: NDArray[np.uint8]
) -> None:
    copy_HW = corrupted(name, image_HW, 7)
    assert copy_HW.shape == image_HW.shape
    assert copy_HW.dtype == image_HW.dtype
    assert np.abs(copy_HW.astype(int) - image_HW).mean() > 0.2
    assert np.corrcoef(copy_HW.ravel(), image_HW.ravel())[0, 1] > 0.8


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_corrupted_in_the_same_way_each_time(
    name: str, image_HW: NDArray[np.uint8]
) -> None:
    assert np.array_equal(corrupted(name, image_HW, 7), corrupted(name, image_HW, 7))


def test_a_gamma_below_one_brightens_and_one_above_darkens(image_HW: NDArray[np.uint8]) -> None:
    assert (
        corrupted("gamma 0.6", image_HW, 0).mean()
        > image_HW.mean()
        > corrupted("gamma 1.6", image_HW, 0).mean()
    )


def test_zooming_in_enlarges_what_is_bright_and_zooming_out_shrinks_it(
    image_HW: NDArray[np.uint8],
) -> None:
    bright = (image_HW > 100).sum()
    assert (corrupted("zoomed in", image_HW, 0) > 100).sum() == pytest.approx(
        bright * 1.15**2, rel=0.05
    )
    assert (corrupted("zoomed out", image_HW, 0) > 100).sum() == pytest.approx(
        bright / 1.15**2, rel=0.05
    )
