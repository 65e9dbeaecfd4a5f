import numpy as np
import pytest

from cxr.decode import DecodeLimits, decode
from cxr.image_size import halvings
from cxr.preprocess import PreprocessSpec, preprocess
from tests.factories import chest, make_dicom, make_jpeg, make_png

LIMITS = DecodeLimits()


def test_the_input_is_the_mean_over_areas() -> None:
    pixels = chest(448, 448)
    image_HW = preprocess(decode(make_png(pixels), limits=LIMITS), PreprocessSpec(size=224))
    np.testing.assert_allclose(
        image_HW, pixels.reshape(224, 2, 224, 2).mean(axis=(1, 3)), atol=0.51
    )


@pytest.mark.parametrize("shape", [(1024, 1024), (1791, 2048), (300, 500), (224, 224), (100, 100)])
def test_the_input_is_square_and_of_the_wanted_size(shape: tuple[int, int]) -> None:
    image_HW = preprocess(
        decode(make_png(chest(*shape)), limits=LIMITS, size=224), PreprocessSpec(size=224)
    )
    assert image_HW.shape == (224, 224)
    assert image_HW.dtype == np.uint8
    assert image_HW.flags.c_contiguous


@pytest.mark.parametrize(
    "shape", [(1024, 1024), (1791, 2048), (1795, 1801), (1000, 700), (3000, 3000)]
)
def test_a_jpeg_scaled_while_decoding_gives_the_same_input_within_two_grey_levels(
    shape: tuple[int, int],
) -> None:
    data, spec = make_jpeg(chest(*shape)), PreprocessSpec(size=224)
    scaled = preprocess(decode(data, limits=LIMITS, size=224), spec)
    whole = preprocess(decode(data, limits=LIMITS), spec)
    assert np.abs(scaled.astype(int) - whole).max() <= 2


def test_an_inverted_twin_gives_the_same_input_bit_for_bit() -> None:
    pixels, spec = chest(700, 900), PreprocessSpec(size=224)
    twin = make_dicom(255 - pixels, PhotometricInterpretation="MONOCHROME1")
    one, other = (
        preprocess(decode(data, limits=LIMITS, size=224), spec)
        for data in (make_dicom(pixels), twin)
    )
    np.testing.assert_array_equal(one, other)


def test_halving_stops_at_the_target() -> None:
    assert [halvings(side, side, 224) for side in (100, 224, 447, 448, 1024, 1791, 1792)] == [
        1,
        1,
        1,
        2,
        4,
        4,
        8,
    ]
