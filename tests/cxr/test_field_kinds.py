"""Grey scales, colours and depths as real archives have them: read as meant, or told."""

import struct
import warnings
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

from cxr.decode import DecodeLimits, decode, quiet_libraries
from cxr.deep_png import decode_deep_png
from cxr.errors import ImageError
from cxr.radiograph import Radiograph
from tests.factories import Pixels, chest, make_dicom, make_jpeg, ramp, saved
from tests.worst_files import png

IMAGE = chest(128, 120)
JPEG = make_jpeg(IMAGE)


def read(data: bytes, **options: Any) -> Radiograph:
    with warnings.catch_warnings():
        quiet_libraries()
        return decode(data, limits=DecodeLimits(), **options)


def codes(radiograph: Radiograph) -> set[str]:
    return {warning.code.value for warning in radiograph.warnings}


def in_dicom(frame: bytes, **tags: Any) -> bytes:
    pixels = np.dstack([IMAGE] * 3) if tags.get("SamplesPerPixel") == 3 else IMAGE
    return make_dicom(pixels, syntax=JPEGBaseline8Bit, PixelData=encapsulate([frame]), **tags)


# --- VOI LUT ---


def voi_lut(bits_stated: int, entries: Pixels) -> Sequence:
    lut = Dataset()
    lut.LUTDescriptor = [len(entries), 0, bits_stated]
    lut.LUTData = [int(entry) for entry in entries]
    lut["LUTDescriptor"].VR = "US"
    lut["LUTData"].VR = "US"
    return Sequence([lut])


@pytest.mark.parametrize("bits", range(9, 17))
@pytest.mark.parametrize("stored_bits", [8, 10, 12])
def test_the_entries_of_a_voi_lut_say_how_bright_white_is(bits: int, stored_bits: int) -> None:
    values = ramp(top=2**stored_bits - 1)
    entries = np.rint(np.linspace(0, 2**bits - 1, 2**stored_bits))
    radiograph = read(
        make_dicom(
            values,
            BitsStored=stored_bits,
            HighBit=stored_bits - 1,
            VOILUTSequence=voi_lut(16, entries),
        )
    )
    expected = values / (2**stored_bits - 1) * 255
    np.testing.assert_allclose(radiograph.pixels_HW, expected, atol=1)
    assert codes(radiograph) == ({"header_repaired"} if bits < 16 else set())


# --- colour ---


def ycc_jpeg(**options: Any) -> bytes:
    """Return a grey image as a JFIF stream of YCbCr."""
    return make_jpeg(np.dstack([IMAGE] * 3), **options)


def without_jfif(stream: bytes) -> bytes:
    length = struct.unpack_from(">H", stream, 4)[0]
    return stream[:2] + stream[4 + length :]


def with_ids(stream: bytes, ids: bytes) -> bytes:
    """Give the three components of a baseline stream other numbers."""
    frame, scan = stream.index(b"\xff\xc0"), stream.index(b"\xff\xda")
    changed = bytearray(stream)
    changed[frame + 10 : frame + 19 : 3] = ids
    changed[scan + 5 : scan + 11 : 2] = ids
    return bytes(changed)


def rgb_jpeg(ids: bytes = b"RGB") -> bytes:
    """Return a grey image as a stream of RGB without any marker: all three components alike."""
    return with_ids(
        without_jfif(saved(Image.merge("RGB", [Image.fromarray(IMAGE)] * 3), "JPEG", quality=95,
                           keep_rgb=True)), ids
    )  # fmt: skip


COLOURS = {
    "JFIF called RGB": (ycc_jpeg(), "RGB", True),
    "JFIF without subsampling called RGB": (ycc_jpeg(subsampling=0), "RGB", True),
    "JFIF": (ycc_jpeg(), "YBR_FULL_422", False),
    "no marker, subsampled, called RGB": (without_jfif(ycc_jpeg()), "RGB", True),
    "no marker, neutral chroma, called RGB": (without_jfif(ycc_jpeg(subsampling=0)), "RGB", True),
    "no marker, called YBR": (without_jfif(ycc_jpeg(subsampling=0)), "YBR_FULL", False),
    "components R, G, B": (rgb_jpeg(), "RGB", False),
    "components R, G, B called YBR": (rgb_jpeg(), "YBR_FULL_422", True),
    "components 1, 2, 3 that are RGB": (rgb_jpeg(b"\1\2\3"), "RGB", False),
}


@pytest.mark.parametrize("kind", COLOURS)
def test_the_stream_says_which_colours_it_has(kind: str) -> None:
    stream, photometric, is_repaired = COLOURS[kind]
    data = in_dicom(
        stream, SamplesPerPixel=3, PhotometricInterpretation=photometric, PlanarConfiguration=0
    )
    radiograph = read(data)
    assert np.abs(radiograph.pixels_HW.astype(int) - IMAGE).mean() < 1.5
    assert ("header_repaired" in codes(radiograph)) is is_repaired


def test_a_grey_header_over_a_colour_stream_leaves_its_brightness() -> None:
    radiograph = read(in_dicom(ycc_jpeg()))
    assert np.abs(radiograph.pixels_HW.astype(int) - IMAGE).mean() < 1.5
    assert "header_repaired" in codes(radiograph)


def test_native_pixels_called_rgb_with_neutral_chroma_are_their_first_sample() -> None:
    neutral = np.full_like(IMAGE, 128)
    radiograph = read(make_dicom(np.dstack([IMAGE, neutral, neutral])))
    np.testing.assert_allclose(radiograph.pixels_HW, IMAGE, atol=1)
    assert "header_repaired" in codes(radiograph)


# --- PNG of 16 bits ---


def deep_png(samples: Pixels) -> bytes:
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(samples, np.uint16)))


@pytest.mark.parametrize("bits", [8, 9, 10, 11, 12, 13, 14, 15, 16])
@pytest.mark.parametrize("channels", ["grey", "grey and alpha", "rgb", "rgba"])
def test_a_deep_png_is_scaled_from_the_depth_that_it_uses(bits: int, channels: str) -> None:
    values = ramp(top=2**bits - 1).astype(np.uint16)
    alpha = np.full_like(values, 65535)
    samples = {
        "grey": values,
        "grey and alpha": np.dstack([values, alpha]),
        "rgb": np.dstack([values] * 3),
        "rgba": np.dstack([values] * 3 + [alpha]),
    }[channels]
    radiograph = read(deep_png(samples))
    np.testing.assert_allclose(radiograph.pixels_HW, values / (2**bits - 1) * 255, atol=0.51)
    assert codes(radiograph) == ({"intensity_guessed"} if bits < 16 else set())


def test_a_deep_png_whose_brightest_pixel_tells_no_depth_is_told() -> None:
    assert codes(read(deep_png(ramp(top=40_000)))) == {"intensity_guessed"}


def test_a_deep_png_with_colours_is_told() -> None:
    values = ramp(top=65535).astype(np.uint16)
    radiograph = read(deep_png(np.dstack([values, values // 2, values // 3])))
    assert "color_input" in codes(radiograph)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("color", [2, 4, 6])
def test_deep_colours_are_read_in_full_and_nothing_is_written_to_standard_error(
    color: int, capfd: pytest.CaptureFixture[str], *, interlaced: bool
) -> None:
    for row_filter in range(5):
        data = png(70, 90, 16, color, row_filter, noise=True, interlaced=interlaced)
        samples = decode_deep_png(data)
        assert capfd.readouterr() == ("", "")
        np.testing.assert_array_equal(samples, imagecodecs.png_decode(data))
        capfd.readouterr()


@given(place=st.floats(0.05, 0.95), count=st.integers(1, 64))
def test_a_damaged_deep_png_is_refused(place: float, count: int) -> None:
    noise = np.random.default_rng(1).integers(0, 65536, (80, 80, 3)).astype(np.uint16)
    png = deep_png(noise)
    start = int(len(png) * place)
    with pytest.raises(ImageError):
        read(png[:start] + png[start + count :])


# --- exchanged sides ---


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
@pytest.mark.parametrize("bits", [8, 12])
def test_exchanged_rows_and_columns_are_told(syntax: UID, bits: int) -> None:
    image = chest(256, 200)
    stored = image if bits == 8 else image.astype(np.uint16) << 4
    tags: dict[str, Any] = {} if bits == 8 else {"BitsStored": 12, "HighBit": 11}
    right = read(make_dicom(stored, syntax=syntax, **tags))
    wrong = read(make_dicom(stored.reshape(200, 256), syntax=syntax, **tags))
    assert "looks_sheared" not in codes(right)
    assert "looks_sheared" in codes(wrong)
