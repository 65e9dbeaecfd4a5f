"""Values that the header describes wrongly are told or refused, and never read silently."""

import struct
import zlib
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit

from cxr.decode import DecodeLimits, decode
from cxr.errors import CorruptImage, NotARadiograph
from cxr.radiograph import Radiograph
from tests.factories import Pixels, chest, make_dicom, make_jpeg, ramp

VALUES = ramp(top=4095)
WINDOW: dict[str, Any] = {"WindowCenter": 2048, "WindowWidth": 4096}
TWELVE_BITS: dict[str, Any] = {"BitsStored": 12, "HighBit": 11, **WINDOW}
OVERLAY_BIT = np.uint16(1 << 13)


def read(data: bytes) -> tuple[Radiograph, set[str]]:
    radiograph = decode(data, limits=DecodeLimits(), size=None)
    return radiograph, {warning.code.value for warning in radiograph.warnings}


@pytest.mark.parametrize(
    ("stored", "tags"),
    [
        pytest.param(VALUES, {"BitsStored": 10, "HighBit": 9}, id="BitsStored too low"),
        pytest.param(VALUES << 4, {"BitsStored": 12, "HighBit": 11}, id="HighBit too low"),
        pytest.param(
            VALUES.astype(np.int16) - 2048,
            {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0},
            id="negative values called unsigned",
        ),
    ],
)
def test_values_above_the_stored_bits_are_told(stored: Pixels, tags: dict[str, Any]) -> None:
    _, warnings = read(make_dicom(stored, **WINDOW, **tags))

    assert "header_repaired" in warnings


def test_colours_above_the_stored_bits_are_told() -> None:
    colors = np.stack([VALUES] * 3, axis=-1)
    _, warnings = read(make_dicom(colors, BitsStored=10, HighBit=9))

    assert "header_repaired" in warnings


def test_an_overlay_that_the_header_describes_is_nothing_to_tell() -> None:
    overlay = Dataset()
    overlay.add_new(0x60000100, "US", 16)
    overlay.add_new(0x60000102, "US", 13)
    radiograph, warnings = read(make_dicom(VALUES | OVERLAY_BIT, extra=overlay, **TWELVE_BITS))

    assert "header_repaired" not in warnings
    np.testing.assert_allclose(radiograph.pixels_HW, VALUES / 4095 * 255, atol=0.51)


@pytest.mark.parametrize("kept", [-1, 0xFFF], ids=["extended", "not extended"])
def test_the_sign_of_negative_values_is_nothing_to_tell(kept: int) -> None:
    stored = (VALUES.astype(np.int16) - 2048) & np.int16(kept)
    radiograph, warnings = read(
        make_dicom(stored, **{**TWELVE_BITS, "PixelRepresentation": 1, "WindowCenter": 0})
    )

    assert "header_repaired" not in warnings
    np.testing.assert_allclose(radiograph.pixels_HW, VALUES / 4095 * 255, atol=0.51)


def test_colours_that_stand_high_in_their_words_are_brought_down() -> None:
    colors = np.stack([VALUES] * 3, axis=-1)
    radiograph, _ = read(make_dicom(colors << 4, BitsStored=12, HighBit=15))

    np.testing.assert_allclose(radiograph.pixels_HW, VALUES / 4095 * 255, atol=0.51)


@pytest.mark.parametrize(
    ("stream", "header"), [(np.uint16, np.int16), (np.int16, np.uint16)], ids=["signed", "not"]
)
def test_a_jpeg_2000_stream_of_another_sign_than_the_header_is_told(
    stream: type, header: type
) -> None:
    coded = imagecodecs.jpeg2k_encode(
        VALUES.astype(stream), codecformat="j2k", level=0, reversible=True
    )
    data = make_dicom(
        VALUES.astype(header),
        syntax=JPEG2000Lossless,
        PixelData=encapsulate([bytes(coded)]),
        **TWELVE_BITS,
    )

    assert "header_repaired" in read(data)[1]


def test_colours_of_a_retired_kind_are_refused() -> None:
    colors = np.stack([chest()] * 3, axis=-1)

    with pytest.raises(CorruptImage, match="RGB"):
        read(make_dicom(colors, PhotometricInterpretation="HSV"))


def test_two_frames_are_refused_though_the_header_states_none() -> None:
    frames = encapsulate([make_jpeg(chest()), make_jpeg(255 - chest())])

    with pytest.raises(NotARadiograph, match="several frames"):
        read(make_dicom(chest(), syntax=JPEGBaseline8Bit, PixelData=frames))


def test_a_frame_in_several_fragments_is_one_frame() -> None:
    frame = encapsulate([make_jpeg(chest())], fragments_per_frame=5)
    radiograph, _ = read(make_dicom(chest(), syntax=JPEGBaseline8Bit, PixelData=frame))

    np.testing.assert_allclose(radiograph.pixels_HW, chest(), atol=12)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">L", len(content)) + kind + content + struct.pack(
        ">L", zlib.crc32(kind + content)
    )  # fmt: skip


def test_a_png_that_states_its_size_twice_is_refused() -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in chest())
    whole, half = (struct.pack(">LLBBBBB", 256, height, 8, 0, 0, 0, 0) for height in (256, 128))
    data = b"\x89PNG\r\n\x1a\n" + b"".join((
        chunk(b"IHDR", whole), chunk(b"IHDR", half), chunk(b"IDAT", zlib.compress(rows)),
        chunk(b"IEND", b""),
    ))  # fmt: skip

    with pytest.raises(CorruptImage, match="two headers"):
        read(data)
