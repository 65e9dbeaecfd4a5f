from collections.abc import Callable

import numpy as np
import pytest
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from cxr.decode import DecodeLimits, decode, sniff
from cxr.errors import (
    CorruptImage,
    EmptyFile,
    ImageError,
    NeedsWorker,
    NotARadiograph,
    TooLarge,
    UnsupportedFormat,
)
from cxr.warning_codes import WarningCode
from tests.factories import chest, make_dicom, make_jpeg, make_png, ramp

LIMITS = DecodeLimits()


def test_the_format_is_told_by_content_alone() -> None:
    assert sniff(make_dicom(ramp())) == "dicom"
    assert sniff(make_png(ramp())) == "png"
    assert sniff(make_jpeg(ramp())) == "jpeg"


@pytest.mark.parametrize(
    "data", [b"BM" + bytes(200), b"GIF89a" + bytes(200), bytes(4096), b"II*\0" + bytes(100)]
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(UnsupportedFormat):
        decode(data, limits=LIMITS)


def test_an_empty_file_is_no_file() -> None:
    with pytest.raises(EmptyFile):
        decode(b"", limits=LIMITS)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, DeflatedExplicitVRLittleEndian])
def test_what_can_take_long_needs_a_worker(syntax: UID) -> None:
    with pytest.raises(NeedsWorker):
        decode(make_dicom(ramp(), syntax=syntax), limits=LIMITS, can_be_stopped=False)


@pytest.mark.parametrize(
    "data",
    [
        make_dicom(ramp(), syntax=RLELossless),
        make_dicom(ramp(), syntax=JPEGBaseline8Bit),
        make_png(ramp()),
    ],
)
def test_what_is_quick_is_the_same_in_a_thread_and_in_a_worker(data: bytes) -> None:
    here, there = decode(data, limits=LIMITS, can_be_stopped=False), decode(data, limits=LIMITS)

    np.testing.assert_array_equal(here.pixels_HW, there.pixels_HW)


def test_a_file_that_will_be_refused_needs_no_worker() -> None:
    with pytest.raises(NotARadiograph):
        decode(
            make_dicom(ramp(), Modality="CT", syntax=JPEGBaseline8Bit),
            limits=LIMITS,
            can_be_stopped=False,
        )


def test_a_file_over_the_byte_limit_is_too_large() -> None:
    with pytest.raises(TooLarge):
        decode(make_png(chest()), limits=DecodeLimits(max_bytes=1000))


@pytest.mark.parametrize("make", [make_png, make_jpeg, make_dicom])
def test_an_image_over_the_pixel_limit_is_too_large_in_every_format(
    make: Callable[..., bytes],
) -> None:
    with pytest.raises(TooLarge):
        decode(make(ramp()), limits=DecodeLimits(max_pixels=96 * 128 - 1))


@pytest.mark.parametrize("make", [make_png, make_jpeg, make_dicom])
def test_an_image_under_64_pixels_on_a_side_is_no_radiograph(make: Callable[..., bytes]) -> None:
    with pytest.raises(NotARadiograph):
        decode(make(ramp(63, 200)), limits=LIMITS)


@pytest.mark.parametrize("make", [make_png, make_jpeg, make_dicom])
def test_a_file_cut_short_is_corrupt(make: Callable[..., bytes]) -> None:
    data = make(chest())
    with pytest.raises(CorruptImage):
        decode(data[: len(data) * 2 // 3], limits=LIMITS)


@pytest.mark.parametrize("make", [make_png, make_jpeg, make_dicom])
def test_no_error_says_anything_of_the_file(make: Callable[..., bytes]) -> None:
    for end in range(0, 2000, 97):
        with pytest.raises(ImageError) as caught:
            decode(make(chest())[:end], limits=LIMITS)
        assert "MARKED" not in str(caught.value).upper()


def test_an_elongated_or_coarse_image_is_warned_of() -> None:
    codes = [
        warning.code
        for warning in decode(make_png(ramp(100, 300)), limits=LIMITS, size=224).warnings
    ]
    assert codes == [WarningCode.ASPECT_UNUSUAL, WarningCode.LOW_RESOLUTION]


def test_the_same_pixels_decode_alike_from_every_lossless_format() -> None:
    pixels = chest()
    for data in (make_png(pixels), make_dicom(pixels), make_dicom(pixels, syntax=RLELossless)):
        np.testing.assert_array_equal(decode(data, limits=LIMITS).pixels_HW, pixels)
