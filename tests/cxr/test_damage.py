"""A damaged scan is refused, wherever the damage is and whatever the codec."""

from collections.abc import Callable
from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from cxr.codestream import read_jpeg_outline
from cxr.decode import DecodeLimits, decode
from cxr.errors import CorruptImage, ImageError
from cxr.jpeg import decode_deep_jpeg, decode_jpeg
from cxr.scan_damage import MIN_ZERO_BYTES
from tests.factories import Pixels, chest, make_dicom, make_jpeg, make_png

RNG = np.random.default_rng(5)
GRAIN = np.rint(RNG.normal(0, 6, (256, 256)))
"""Noise keeps the scan's bytes spread over the whole image."""
SHALLOW = np.clip(chest() + GRAIN, 0, 255).astype(np.uint8)
DEEP = (SHALLOW.astype(np.uint16) << 4) + RNG.integers(0, 16, SHALLOW.shape).astype(np.uint16)
END = b"\xff\xd9"

STREAMS: dict[str, tuple[UID, bytes, Pixels]] = {
    "baseline": (JPEGBaseline8Bit, make_jpeg(SHALLOW), SHALLOW),
    "restarts": (JPEGBaseline8Bit, make_jpeg(SHALLOW, restart_marker_blocks=8), SHALLOW),
    "extended": (
        JPEGExtended12Bit,
        bytes(imagecodecs.jpeg_encode(DEEP, level=95, bitspersample=12)),
        DEEP,
    ),
    "lossless": (JPEGLosslessSV1, bytes(imagecodecs.ljpeg_encode(DEEP, bitspersample=12)), DEEP),
    "lossless of libjpeg": (
        JPEGLosslessSV1,
        bytes(imagecodecs.jpeg_encode(DEEP, lossless=True, bitspersample=12)),
        DEEP,
    ),
    "jpeg-ls": (JPEGLSLossless, bytes(imagecodecs.jpegls_encode(DEEP)), DEEP),
}


def zeroed(stream: bytes, start: int, count: int) -> bytes:
    return stream[:start] + bytes(count) + stream[start + count :]


def without(stream: bytes, start: int, count: int) -> bytes:
    return stream[:start] + stream[start + count :]


def doubled(stream: bytes, start: int, count: int) -> bytes:
    return stream[: start + count] + stream[start:]


def cut(stream: bytes, start: int, count: int) -> bytes:
    return stream[:start] + END


DAMAGES = (zeroed, without, doubled, cut)
Damage = Callable[[bytes, int, int], bytes]


def in_dicom(name: str, stream: bytes) -> bytes:
    syntax, _, pixels = STREAMS[name]
    bits = 8 if pixels.itemsize == 1 else 12
    return make_dicom(
        pixels,
        syntax=syntax,
        PixelData=encapsulate([stream]),
        BitsStored=bits,
        HighBit=bits - 1,
    )


@pytest.mark.parametrize("name", STREAMS)
def test_a_whole_scan_is_read(name: str) -> None:
    decode(in_dicom(name, STREAMS[name][1]), limits=DecodeLimits())


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", STREAMS)
def test_a_damaged_scan_is_refused_at_every_tenth(name: str, damage: Damage) -> None:
    stream = STREAMS[name][1]
    scan = stream.rindex(b"\xff\xda") + 16
    for tenth in range(1, 10):
        broken = damage(stream, scan + (len(stream) - scan) * tenth // 10, 200)
        with pytest.raises(ImageError):
            decode(in_dicom(name, broken), limits=DecodeLimits())


@pytest.mark.parametrize("name", ["lossless", "lossless of libjpeg"])
def test_a_single_missing_byte_of_a_lossless_scan_is_refused(name: str) -> None:
    stream = STREAMS[name][1]
    scan = stream.rindex(b"\xff\xda") + 16
    refused = 0
    for place in range(scan, len(stream) - 40, (len(stream) - scan) // 12):
        if 0xFF in stream[place - 1 : place + 2]:
            continue  # a missing half of a stuffed byte may leave the same bits
        try:
            decode(in_dicom(name, without(stream, place, 1)), limits=DecodeLimits())
        except ImageError:
            refused += 1
    assert refused >= 10


@pytest.mark.parametrize("samples", [1, 3])
def test_zeros_in_a_scan_are_refused_or_told(samples: int) -> None:
    pixels = SHALLOW if samples == 1 else np.dstack([SHALLOW] * 3)
    stream = make_jpeg(pixels)
    scan = stream.rindex(b"\xff\xda") + 16
    for place in range(scan, len(stream) - 100, 97):
        try:
            radiograph = decode(zeroed(stream, place, 64), limits=DecodeLimits(), size=64)
        except CorruptImage:
            continue
        assert "looks_damaged" in {warning.code.value for warning in radiograph.warnings}


def test_a_black_border_that_is_coded_as_zeros_is_no_damage() -> None:
    framed = np.pad(chest(), 256)
    stream = make_jpeg(framed, optimize=True)
    assert bytes(MIN_ZERO_BYTES) in stream
    assert decode(stream, limits=DecodeLimits()).warnings == ()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_plain_jpeg_is_refused(damage: Damage) -> None:
    stream = STREAMS["baseline"][1]
    with pytest.raises(CorruptImage):
        decode(damage(stream, len(stream) // 2, 200), limits=DecodeLimits(), size=64)


@pytest.mark.parametrize("tenth", range(1, 10))
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_colour_jpeg_is_refused_or_warned_of(damage: Damage, tenth: int) -> None:
    stream = make_jpeg(np.dstack([SHALLOW] * 3))
    try:
        radiograph = decode(
            damage(stream, len(stream) * tenth // 10, 200), limits=DecodeLimits(), size=128
        )
    except CorruptImage:
        return
    codes = {warning.code.value for warning in radiograph.warnings}
    assert codes & {"looks_damaged", "color_input"}  # brightness and chroma change alike


def test_a_whole_image_does_not_look_damaged() -> None:
    for pixels in (SHALLOW, np.dstack([SHALLOW] * 3), chest(), np.pad(chest(), 64)):
        assert decode(make_jpeg(pixels), limits=DecodeLimits()).warnings == ()


@pytest.mark.parametrize("tenth", range(1, 10))
def test_a_cut_progressive_jpeg_is_refused(tenth: int) -> None:
    stream = make_jpeg(SHALLOW, progressive=True)
    with pytest.raises(CorruptImage):
        decode(cut(stream, len(stream) * tenth // 10, 0), limits=DecodeLimits())


@given(place=st.floats(0.05, 0.95), byte=st.integers(0, 255))
def test_any_changed_byte_of_a_png_is_noticed(place: float, byte: int) -> None:
    png = make_png(SHALLOW)
    start = int(len(png) * place)
    broken = png[:start] + bytes((byte,)) + png[start + 1 :]
    if broken != png:
        with pytest.raises(ImageError):
            decode(broken, limits=DecodeLimits())


@pytest.mark.parametrize("tenth", range(1, 10))
@pytest.mark.parametrize("damage", [zeroed, without, doubled])
def test_a_damaged_rle_segment_is_refused(damage: Damage, tenth: int) -> None:
    data = make_dicom(DEEP, syntax=RLELossless, BitsStored=12, HighBit=11)
    start = data.index(b"\xe0\x7f\x10\x00")
    place = start + (len(data) - start) * tenth // 10
    with pytest.raises(ImageError):
        decode(damage(data, place & ~1, 200), limits=DecodeLimits())


def test_a_cut_jpeg_2000_stream_is_refused() -> None:
    stream = bytes(imagecodecs.jpeg2k_encode(DEEP, codecformat="j2k", level=0, reversible=True))
    for tenth in range(1, 10):
        broken = make_dicom(
            DEEP,
            syntax=JPEG2000Lossless,
            PixelData=encapsulate([stream[: len(stream) * tenth // 10] + END]),
            BitsStored=12,
            HighBit=11,
        )
        with pytest.raises(ImageError):
            decode(broken, limits=DecodeLimits())


@pytest.mark.parametrize("zeros", [1, 2, 40])
def test_padding_before_the_end_marker_is_no_damage(zeros: int) -> None:
    stream = STREAMS["baseline"][1]
    padded = stream[:-2] + bytes(zeros) + END
    expected = decode_jpeg(read_jpeg_outline(stream))
    np.testing.assert_array_equal(decode_jpeg(read_jpeg_outline(padded)), expected)


@pytest.mark.parametrize("name", ["extended", "lossless"])
def test_one_byte_more_than_needed_is_no_damage(name: str) -> None:
    stream = STREAMS[name][1]
    padded = stream[:-2] + b"\0" + END
    expected = decode_deep_jpeg(read_jpeg_outline(stream))
    np.testing.assert_array_equal(decode_deep_jpeg(read_jpeg_outline(padded)), expected)


@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
def test_a_jpeg_is_averaged_as_libjpeg_averages(reduction: int) -> None:
    stream = make_jpeg(chest(250, 203))
    with Image.open(BytesIO(stream)) as image:
        if reduction > 1:
            image.draft("L", (203 // reduction, 250 // reduction))
        expected = np.asarray(image)
    found = decode_jpeg(read_jpeg_outline(stream), reduction=reduction)
    np.testing.assert_array_equal(found, expected)


def test_an_intact_lossless_scan_is_never_called_damaged() -> None:
    """Altered differences may cancel out, so that the last sample stays as it was."""
    for seed in range(60):
        pixels = np.random.default_rng(seed).integers(90, 110, (64, 64), np.uint8)
        read = decode(make_dicom(pixels, syntax=JPEGLosslessSV1), limits=DecodeLimits())
        assert np.array_equal(read.pixels_HW, pixels)


def test_a_whole_12_bit_scan_that_ends_in_a_black_border_is_read() -> None:
    for border in range(9, 25):
        framed = np.pad(DEEP[:-border, :-border], ((0, border), (0, border)))
        stream = bytes(imagecodecs.jpeg_encode(framed, level=97, bitspersample=12))
        assert decode_deep_jpeg(read_jpeg_outline(stream)).shape == framed.shape
