"""Kinds of files that people reported to other projects; docs/field.md says where."""

import struct
import warnings
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
)

from cxr.decode import DecodeLimits, decode, quiet_libraries
from cxr.errors import CorruptImage, ImageError, NotARadiograph, UnsupportedFormat
from cxr.radiograph import Radiograph
from tests.factories import Pixels, chest, make_dicom, make_jpeg, ramp

IMAGE = chest(97, 101)
"""An odd number of pixels, so that a byte of padding follows them."""


def read(data: bytes, **options: Any) -> Radiograph:
    with warnings.catch_warnings():
        quiet_libraries()
        return decode(data, limits=DecodeLimits(), **options)


def codes(radiograph: Radiograph) -> set[str]:
    return {warning.code.value for warning in radiograph.warnings}


def gives(data: bytes, image: Pixels = IMAGE) -> None:
    np.testing.assert_array_equal(read(data).pixels_HW, image)


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    """A short element of Explicit VR Little Endian, of any length and VR."""
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def inserted(data: bytes, before: bytes, new: bytes) -> bytes:
    """Put bytes before the element that begins with these."""
    start = data.index(before)
    return data[:start] + new + data[start:]


def test_an_odd_number_of_pixels_is_read_with_and_without_its_padding() -> None:
    data = make_dicom(IMAGE)
    gives(data)
    unpadded = data[:-1].replace(struct.pack("<L", IMAGE.size + 1), struct.pack("<L", IMAGE.size))
    gives(unpadded)


def test_pixels_that_are_fewer_than_stated_are_refused() -> None:
    with pytest.raises(CorruptImage):
        read(make_dicom(IMAGE, PixelData=IMAGE.tobytes()[:-200]))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("junk", [b"\xff\x0f" * 500, b"\x34\x12" * 400, b"\x10\x20\x01"])
def test_values_behind_the_stated_length_are_left_aside(syntax: Any, junk: bytes) -> None:
    gives(make_dicom(IMAGE, syntax=syntax) + junk)


def test_a_negative_slope_turns_the_scale_round() -> None:
    stored = (255 - IMAGE.astype(np.uint16)) << 4
    tags: dict[str, Any] = {
        "BitsStored": 12,
        "HighBit": 11,
        "RescaleSlope": -10,
        "RescaleIntercept": 3000,
    }
    radiograph = read(make_dicom(stored, **tags))
    low, high = np.percentile(IMAGE, [1, 99])
    expected = np.clip((IMAGE - low) / (high - low), 0, 1) * 255
    assert np.abs(radiograph.pixels_HW - expected).mean() < 6


@pytest.mark.parametrize("allocated", [8, 16])
def test_a_compressed_image_of_8_bits_may_be_called_16(allocated: int) -> None:
    stream = bytes(imagecodecs.jpeg2k_encode(IMAGE, codecformat="j2k", level=0, reversible=True))
    gives(
        make_dicom(
            IMAGE,
            syntax=JPEG2000Lossless,
            PixelData=encapsulate([stream]),
            BitsAllocated=allocated,
        )
    )


def test_a_header_that_kept_12_bits_over_a_stream_of_8_is_told() -> None:
    data = make_dicom(
        IMAGE,
        syntax=JPEGBaseline8Bit,
        PixelData=encapsulate([make_jpeg(IMAGE)]),
        BitsAllocated=16,
        BitsStored=12,
        HighBit=11,
        WindowCenter=2048,
        WindowWidth=4096,
    )
    assert "header_repaired" in codes(read(data))


def test_a_codestream_in_the_boxes_of_a_jp2_file_is_read() -> None:
    stream = bytes(imagecodecs.jpeg2k_encode(IMAGE, codecformat="jp2", level=0, reversible=True))
    gives(make_dicom(IMAGE, syntax=JPEG2000Lossless, PixelData=encapsulate([stream])))


def test_bits_of_an_overlay_above_the_stored_ones_are_no_brightness() -> None:
    deep = ramp(top=4095)
    marked = deep | np.uint16(0x8000)
    tags: dict[str, Any] = {
        "BitsStored": 12,
        "HighBit": 11,
        "WindowCenter": 2048,
        "WindowWidth": 4096,
    }
    gives(make_dicom(marked, **tags), read(make_dicom(deep, **tags)).pixels_HW)


def test_an_overlay_that_is_too_short_does_not_matter() -> None:
    overlay = Dataset()
    overlay.add_new(0x60000010, "US", 567)
    overlay.add_new(0x60000011, "US", 652)
    overlay.add_new(0x60000100, "US", 1)
    overlay.add_new(0x60003000, "OW", b"\1\2")
    gives(make_dicom(IMAGE, extra=overlay))


def test_an_icon_before_the_image_is_not_the_image() -> None:
    icon = Dataset()
    icon.Rows, icon.Columns, icon.BitsAllocated = 64, 64, 8
    icon.PixelData = bytes(64 * 64)
    icon["PixelData"].VR = "OB"
    extra = Dataset()
    extra.IconImageSequence = Sequence([icon])
    gives(make_dicom(IMAGE, extra=extra))
    with pytest.raises(NotARadiograph):
        read(make_dicom(IMAGE, extra=extra, PixelData=None))


@pytest.mark.parametrize("length", [0, 1, 2**31])
def test_the_length_of_the_meta_information_is_not_trusted(length: int) -> None:
    data = make_dicom(IMAGE)
    start = data.index(b"\2\0\0\0UL\4\0") + 8
    gives(data[:start] + struct.pack("<L", length) + data[start + 4 :])


def test_a_missing_length_of_the_meta_information_is_no_fault() -> None:
    data = make_dicom(IMAGE)
    start = data.index(b"\2\0\0\0UL\4\0")
    gives(data[:start] + data[start + 12 :])


def test_group_lengths_that_are_wrong_do_not_matter() -> None:
    data = make_dicom(IMAGE)
    length = element(0x0008, 0x0000, b"UL", struct.pack("<L", 12345))
    gives(inserted(data, b"\x08\0\x16\0UI", length))


def test_values_of_odd_length_are_read() -> None:
    odd = element(0x0008, 0x0070, b"LO", b"Maker")
    gives(inserted(make_dicom(IMAGE, Manufacturer=None), b"\x10\0\x10\0PN", odd))


def test_a_transfer_syntax_that_names_the_other_vr_form_is_seen_through() -> None:
    implicit = make_dicom(IMAGE, syntax=ImplicitVRLittleEndian)
    name, other = b"1.2.840.10008.1.2\0", b"1.2.840.10008.1.2.1\0"
    start = implicit.index(name) - 2
    renamed = (
        implicit[:start] + struct.pack("<H", len(other)) + other + implicit[start + 2 + len(name) :]
    )
    gives(renamed)


def test_a_file_without_its_preamble_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedFormat, match="preamble"):
        read(make_dicom(IMAGE)[132:])


def test_an_empty_version_of_the_meta_information_is_no_fault() -> None:
    data = make_dicom(IMAGE)
    start = data.index(b"\2\0\1\0OB")
    gives(data[:start] + struct.pack("<HH2sHL", 2, 1, b"OB", 0, 0) + data[start + 14 :])


def test_an_element_of_an_unknown_vr_is_refused() -> None:
    unknown = element(0x0009, 0x1001, b"??", b"\0\0\0\0abcd")
    with pytest.raises(ImageError):
        read(inserted(make_dicom(IMAGE), b"\x10\0\x10\0PN", unknown))


def test_a_second_transfer_syntax_within_the_data_set_does_not_count() -> None:
    second = element(0x0002, 0x0010, b"UI", b"1.2.840.10008.1.2\0")
    data = make_dicom(IMAGE)
    try:
        radiograph = read(inserted(data, b"\x08\0\x16\0UI", second))
    except CorruptImage:
        return
    np.testing.assert_array_equal(radiograph.pixels_HW, IMAGE)


def test_elements_out_of_order_are_read() -> None:
    late = element(0x0018, 0x0015, b"CS", b"CHEST ")
    data = make_dicom(IMAGE, BodyPartExamined=None)
    radiograph = read(inserted(data, b"\xe0\x7f\x10\0OB", late))
    assert (codes(radiograph), radiograph.metadata.sex) == (set(), "F")


def test_a_window_beyond_the_depth_shows_what_it_says() -> None:
    stored = IMAGE.astype(np.uint16)
    tags: dict[str, Any] = {
        "BitsStored": 12,
        "HighBit": 11,
        "WindowCenter": "127.5",
        "WindowWidth": "256",
    }
    assert np.abs(read(make_dicom(stored, **tags)).pixels_HW.astype(int) - IMAGE).max() <= 1


def test_numbers_with_a_decimal_comma_are_left_aside_and_told() -> None:
    data = make_dicom(
        IMAGE, WindowCenter="128.5", WindowWidth="256.0", raw={"128.5": b"128,5", "256.0": b"256,0"}
    )
    radiograph = read(data)
    np.testing.assert_array_equal(radiograph.pixels_HW, IMAGE)
    assert codes(radiograph) == {"header_repaired"}


def test_a_photometric_interpretation_of_another_vr_is_no_crash() -> None:
    data = make_dicom(IMAGE).replace(b"\x28\0\4\0CS", b"\x28\0\4\0DS")
    gives(data.replace(b"MONOCHROME2", b"Monochrome2"))
    with pytest.raises(CorruptImage):
        read(data.replace(b"MONOCHROME2", b"MONOCHRO2ME"))
