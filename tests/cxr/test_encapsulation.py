"""Encapsulated pixels, padding and missing attributes: what leaves one reading is read."""

import struct
import warnings
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

from cxr.decode import DecodeLimits, decode, quiet_libraries
from cxr.errors import CorruptImage, ImageError
from cxr.radiograph import Radiograph
from tests.factories import chest, make_dicom, make_jpeg

IMAGE = chest(128, 120)
JPEG = make_jpeg(IMAGE)
DELIMITER = b"\xfe\xff\xdd\xe0\0\0\0\0"


def read(data: bytes) -> Radiograph:
    with warnings.catch_warnings():
        quiet_libraries()
        return decode(data, limits=DecodeLimits())


def codes(radiograph: Radiograph) -> set[str]:
    return {warning.code.value for warning in radiograph.warnings}


def in_dicom(frame: bytes) -> bytes:
    return make_dicom(IMAGE, syntax=JPEGBaseline8Bit, PixelData=encapsulate([frame]))


def with_fragments(*items: bytes, end: bytes = DELIMITER) -> bytes:
    """A file whose pixel data has these items, the offset table among them, and this end."""
    plain = in_dicom(JPEG)
    start = plain.index(b"\xe0\x7f\x10\x00OB") + 12
    return (
        plain[:start]
        + b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<L", len(item)) + item for item in items)
        + end
    )


def even(data: bytes) -> bytes:
    return data + b"\0" * (len(data) % 2)


PARTS = [even(JPEG)[start : start + 1000] for start in range(0, len(JPEG), 1000)]
OFFSETS = struct.pack(f"<{len(PARTS)}L", *(1008 * index for index in range(len(PARTS))))


@pytest.mark.parametrize(
    "data",
    [
        with_fragments(b"", even(JPEG), end=b"\0" * 8),
        with_fragments(b"", even(JPEG), end=b"\0" * 3),
        with_fragments(b"", even(JPEG), end=b""),
        with_fragments(b"", *PARTS, end=b""),
        with_fragments(b"", *PARTS, end=b"\0" * 100_000),
        with_fragments(OFFSETS, *PARTS),
        with_fragments(b"junk" * 9, *PARTS),
        with_fragments(b"\0\0\0\0", *PARTS),
        with_fragments(b"", b"", *PARTS, b""),
        with_fragments(even(JPEG)),
        with_fragments(*PARTS),
        with_fragments(b"", even(JPEG), end=b"\xfc\xff\xfc\xffOB\0\0\4\0\0\0\0\0\0\0"),
        with_fragments(b"", even(JPEG), end=DELIMITER + b"\0" * 425_000),
        with_fragments(b"", even(JPEG), end=DELIMITER + b"\x1a" * 77),
        with_fragments(b"", even(JPEG), end=DELIMITER + b"\xff" * 512),
        with_fragments(b"", even(JPEG), end=DELIMITER + b"padding " * 64),
    ],
)  # fmt: skip
def test_a_single_frame_is_all_its_fragments_and_ends_anyhow(data: bytes) -> None:
    np.testing.assert_array_equal(read(data).pixels_HW, read(JPEG).pixels_HW)


@pytest.mark.parametrize("missing", [10, 500, 3000])
def test_a_fragment_that_is_cut_short_is_refused(missing: int) -> None:
    data = with_fragments(b"", even(JPEG), end=b"")
    with pytest.raises(ImageError):
        read(data[:-missing])


def test_pixels_of_a_compressed_syntax_without_items_are_read() -> None:
    data = make_dicom(IMAGE, syntax=JPEGBaseline8Bit, PixelData=encapsulate([JPEG]))
    start = data.index(b"\xe0\x7f\x10\x00OB")
    bare = data[: start + 8] + struct.pack("<L", len(even(JPEG))) + even(JPEG)
    np.testing.assert_array_equal(read(bare).pixels_HW, read(JPEG).pixels_HW)


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless]
)
@pytest.mark.parametrize("padding", [b"\0" * 7, b"\0" * 425_000])
def test_padding_behind_the_data_set_is_no_part_of_it(syntax: UID, padding: bytes) -> None:
    data = make_dicom(IMAGE, syntax=syntax) + padding
    np.testing.assert_array_equal(read(data).pixels_HW, IMAGE)


@pytest.mark.parametrize("padding", [2, 4, 16])
@pytest.mark.parametrize("deep", [False, True])
def test_rle_segments_may_be_padded(padding: int, *, deep: bool) -> None:
    stored = IMAGE.astype(np.uint16) << 8 | 7 if deep else IMAGE
    planes = [(stored >> 8).astype(np.uint8), stored.astype(np.uint8)] if deep else [IMAGE]
    segments = [bytes(imagecodecs.packbits_encode(plane)) for plane in planes]
    padded = [even(segment) + b"\0" * padding for segment in segments]
    starts = [64 + sum(map(len, padded[:index])) for index in range(len(padded))]
    header = struct.pack("<16L", len(padded), *starts, *[0] * (15 - len(padded)))
    frame = header + b"".join(padded)
    data = make_dicom(stored, syntax=RLELossless, PixelData=encapsulate([frame]))
    plain = make_dicom(stored)
    np.testing.assert_array_equal(read(data).pixels_HW, read(plain).pixels_HW)


# --- missing attributes ---


def without(keyword: str) -> dict[str, Any]:
    """Return what takes an element out of a file of the factory."""
    return {keyword: None}


@pytest.mark.parametrize("missing", ["SamplesPerPixel", "PixelRepresentation", "BitsStored"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGBaseline8Bit])
def test_a_missing_attribute_that_leaves_one_reading_is_repaired(missing: str, syntax: UID) -> None:
    tags = without(missing)
    if syntax == JPEGBaseline8Bit:
        tags["PixelData"] = encapsulate([JPEG])
    if syntax == RLELossless:
        whole = make_dicom(IMAGE, syntax=syntax)
        element = {"SamplesPerPixel": b"\x28\0\2\0", "PixelRepresentation": b"\x28\0\3\1",
                   "BitsStored": b"\x28\0\1\1"}[missing]  # fmt: skip
        start = whole.index(element + b"US")
        data = whole[:start] + whole[start + 10 :]
    else:
        data = make_dicom(IMAGE, syntax=syntax, **tags)
    radiograph = read(data)
    assert np.abs(radiograph.pixels_HW.astype(int) - IMAGE).mean() < 1.5
    assert codes(radiograph) == {"header_repaired"}


@pytest.mark.parametrize(
    "missing", ["Rows", "Columns", "BitsAllocated", "PhotometricInterpretation"]
)
def test_a_missing_attribute_that_nothing_else_tells_is_named(missing: str) -> None:
    with pytest.raises(CorruptImage, match=missing):
        read(make_dicom(IMAGE, **without(missing)))


@pytest.mark.parametrize("written", [b"Monochrome2", b"monochrome2", b"MONOchrome2"])
def test_the_photometric_interpretation_is_read_in_any_case(written: bytes) -> None:
    data = make_dicom(IMAGE, raw={"MONOCHROME2": written})
    np.testing.assert_array_equal(read(data).pixels_HW, IMAGE)
