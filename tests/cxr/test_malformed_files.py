"""Files that archives and attackers send and nobody wrote a rule for: each gets a sensible answer,
soon, and no crash."""

import struct
import time
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from cxr.decode import DecodeLimits, decode, quiet_libraries
from cxr.errors import ImageError, NeedsWorker
from tests.factories import chest, encode_frame, make_dicom, make_jpeg, make_png, ramp, saved

MAX_CPU_S = 2.0


def answer(data: bytes) -> str:
    """Decode a file: "ok", or the code of its error."""
    started = time.process_time()
    with warnings.catch_warnings():
        quiet_libraries()
        try:
            with suppress(NeedsWorker):
                decode(data, limits=DecodeLimits(), size=224, can_be_stopped=False)
            decode(data, limits=DecodeLimits(), size=224)
        except ImageError as error:
            return error.code
        finally:
            assert time.process_time() - started < MAX_CPU_S
    return "ok"


NO_BYTES = 2 * struct.pack("<HHL", 0xFFFE, 0xE000, 0) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
"""An empty offset table, an empty fragment, the end."""


def frame(data: bytes, syntax: UID, **tags: Any) -> bytes:
    """A DICOM file around one compressed frame."""
    return make_dicom(chest(), syntax=syntax, PixelData=encapsulate([data]), **tags)


def with_elements(**elements: tuple[str, Any]) -> Dataset:
    dataset = Dataset()
    for keyword, (kind, value) in elements.items():
        dataset.add_new(keyword, kind, value)
    return dataset


def overlay() -> bytes:
    """A file with an overlay plane of its own beside the pixels."""
    extra = Dataset()
    extra.add_new(0x60000010, "US", 256)
    extra.add_new(0x60000011, "US", 256)
    extra.add_new(0x60003000, "OW", b"\xff" * (256 * 256 // 8))
    return make_dicom(chest(), extra=extra)


def float_pixels() -> bytes:
    pixels = with_elements(FloatPixelData=("OF", np.zeros(256 * 256, np.float32).tobytes()))
    return make_dicom(
        chest(), BitsAllocated=32, BitsStored=32, HighBit=31, PixelData=None, extra=pixels
    )


def without_meta() -> bytes:
    """A file whose preamble is followed by its data set at once."""
    data = make_dicom(chest())
    end = 132 + 12 + int.from_bytes(data[140:144], "little")
    return data[:132] + data[end:]


def deflated_garbage() -> bytes:
    data = make_dicom(chest(), syntax=DeflatedExplicitVRLittleEndian)
    end = 132 + 12 + int.from_bytes(data[140:144], "little")
    return data[:end] + np.random.default_rng(0).bytes(5000)


def fragments(count: int) -> bytes:
    """One JPEG cut into fragments, as archives do with long ones."""
    return make_dicom(
        chest(),
        syntax=JPEGBaseline8Bit,
        PixelData=encapsulate([make_jpeg(chest())], fragments_per_frame=count),
    )


def truncated_fragment() -> bytes:
    data = fragments(3)
    return data[: len(data) - 3000]


def animated_png() -> bytes:
    frames = [Image.fromarray(chest(seed=seed)) for seed in range(2)]
    return saved(frames[0], "PNG", save_all=True, append_images=frames[1:])


def png_of(mode: str) -> bytes:
    return saved(Image.fromarray(chest()).convert(mode), "PNG")


def deep_png_with_alpha() -> bytes:
    """Sixteen bits of grey and sixteen of transparency, which Pillow does not write."""
    rows = np.zeros((96, 128, 2), ">u2")
    rows[..., 0], rows[..., 1] = ramp(top=65535), 65535
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">L", len(content))
            + kind
            + content
            + struct.pack(">L", zlib.crc32(kind + content))
        )

    header = struct.pack(">LLBBBBB", 128, 96, 16, 4, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def arithmetic_jpeg() -> bytes:
    """A JPEG that says that it is coded arithmetically (SOF9), as hardly any decoder reads."""
    return make_jpeg(chest()).replace(b"\xff\xc0", b"\xff\xc9", 1)


def colour(kind: str) -> bytes:
    image = Image.fromarray(chest()).convert(kind)
    return saved(image, "JPEG", quality=90)


FILES: dict[str, tuple[Callable[[], bytes], set[str]]] = {
    "planes of colour one after the other": (
        lambda: make_dicom(np.repeat(chest()[..., None], 3, axis=2), PlanarConfiguration=1), {"ok"}
    ),
    "32 bits a pixel": (
        lambda: make_dicom(chest().astype(np.uint32), BitsStored=32, HighBit=31),
        {"not_a_radiograph"}
    ),
    "one bit a pixel": (lambda: make_dicom(chest(), BitsAllocated=1, BitsStored=1, HighBit=0),
    {"not_a_radiograph"}),
    "pixels of floating point": (float_pixels, {"not_a_radiograph"}),
    "empty pixels": (lambda: make_dicom(chest(), PixelData=b""), {"corrupt_image",
    "not_a_radiograph"}),
    "too few pixels": (lambda: make_dicom(chest(), PixelData=bytes(1000)), {"corrupt_image"}),
    "more pixels than stated": (lambda: make_dicom(chest(), PixelData=bytes(256 * 256 + 2)),
    {"ok"}),
    "rows of nothing": (lambda: make_dicom(chest(), Rows=0), {"not_a_radiograph", "corrupt_image"}),
    "an overlay": (overlay, {"ok"}),
    "big endian words": (lambda: make_dicom(ramp(top=4095), syntax=ExplicitVRBigEndian,
    BitsStored=12, HighBit=11), {"ok"}),
    "deflated garbage": (deflated_garbage, {"corrupt_image", "not_a_radiograph"}),
    "no meta information": (without_meta, {"unsupported_format"}),
    "several fragments": (lambda: fragments(5), {"ok"}),
    "a fragment without its end": (truncated_fragment, {"corrupt_image"}),
    "a frame of no bytes": (
        lambda: make_dicom(chest(), syntax=JPEGBaseline8Bit, PixelData=NO_BYTES), {"corrupt_image"}
    ),
    "no frame at all": (
        lambda: make_dicom(chest(), syntax=RLELossless, PixelData=encapsulate([b"\0\0"])[:8]),
        {"corrupt_image"}
    ),
    "an enhanced image of one frame": (
        lambda: make_dicom(chest(), SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1.1", NumberOfFrames=1),
        {"not_a_radiograph"}
    ),
    "a colour JPEG that the header calls grey": (
        lambda: frame(colour("RGB"), JPEGBaseline8Bit), {"corrupt_image", "ok"}
    ),
    "a grey JPEG that the header calls colour": (
        lambda: frame(make_jpeg(chest()), JPEGBaseline8Bit,
        PhotometricInterpretation="YBR_FULL_422", SamplesPerPixel=3),
        {"corrupt_image", "ok"},
    ),
    "a lossless JPEG that is called baseline": (
        lambda: frame(encode_frame(chest(), JPEGLosslessSV1), JPEGBaseline8Bit), {"corrupt_image",
        "ok"}
    ),
    "a baseline JPEG that is called lossless": (lambda: frame(make_jpeg(chest()), JPEGLosslessSV1),
    {"corrupt_image", "ok"}),
    "an 8-bit JPEG that is called 12-bit": (
        lambda: frame(bytes(imagecodecs.jpeg8_encode(chest())), JPEGExtended12Bit),
        {"corrupt_image", "ok"}
    ),
    "a JPEG that is called JPEG 2000": (lambda: frame(make_jpeg(chest()), JPEG2000Lossless),
    {"corrupt_image"}),
    "a PNG in a DICOM file": (lambda: frame(make_png(chest()), JPEGBaseline8Bit),
    {"corrupt_image"}),
    "a progressive JPEG": (lambda: make_jpeg(chest(), progressive=True), {"ok"}),
    "a progressive JPEG in a DICOM file": (lambda: frame(make_jpeg(chest(), progressive=True),
    JPEGBaseline8Bit), {"ok"}),
    "an arithmetic JPEG": (arithmetic_jpeg, {"corrupt_image", "ok"}),
    "a CMYK JPEG": (lambda: colour("CMYK"), {"ok"}),
    "a JPEG with junk behind its end": (lambda: make_jpeg(chest()) + b"junk" * 99, {"ok"}),
    "a PNG with junk behind its end": (lambda: make_png(chest()) + b"junk" * 99, {"ok"}),
    "a PNG that moves": (animated_png, {"not_a_radiograph"}),
    "a PNG of one bit": (lambda: png_of("1"), {"ok"}),
    "a PNG of a palette": (lambda: png_of("P"), {"ok"}),
    "a PNG of grey and transparency": (lambda: png_of("LA"), {"ok"}),
    "a PNG of 16 bits of grey and transparency": (deep_png_with_alpha, {"ok"}),
    "a PNG without its pixels": (lambda: make_png(chest())[:60], {"corrupt_image"}),
    "only the head of a JPEG": (lambda: make_jpeg(chest())[:20], {"corrupt_image"}),
    "only the head of a DICOM file": (lambda: make_dicom(chest())[:140], {"corrupt_image",
    "unsupported_format"}),
    "meta information of a wrong length": (
        lambda: make_dicom(chest())[:140] + b"\xff\xff\xff\x7f" + make_dicom(chest())[144:], {"ok",
        "corrupt_image"}
    ),
    "a BMP": (lambda: saved(Image.fromarray(chest()), "BMP"), {"unsupported_format"}),
    "a TIFF": (lambda: saved(Image.fromarray(chest()), "TIFF"), {"unsupported_format"}),
    "a JPEG 2000 file": (lambda: bytes(imagecodecs.jpeg2k_encode(chest())), {"unsupported_format"}),
    "a GIF": (lambda: saved(Image.fromarray(chest()), "GIF"), {"unsupported_format"}),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_an_odd_file_gets_a_sensible_answer_soon(name: str) -> None:
    make, expected = FILES[name]
    assert answer(make()) in expected


def test_a_deep_png_with_transparency_keeps_its_greys() -> None:
    radiograph = decode(deep_png_with_alpha(), limits=DecodeLimits())
    np.testing.assert_allclose(radiograph.pixels_HW, ramp(top=65535) / 257, atol=1)


def test_an_interlaced_png_of_16_bits_is_read() -> None:
    buffer = BytesIO()
    Image.fromarray(ramp(top=65535)).save(buffer, "PNG", interlace=1)
    np.testing.assert_allclose(
        decode(buffer.getvalue(), limits=DecodeLimits()).pixels_HW, ramp(), atol=1
    )
