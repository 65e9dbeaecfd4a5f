"""PNG and JPEG bytes to a radiograph.

Shape suffixes: H rows, W columns.
"""

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr.bounded import BoundedReads
from cxr.codestream import read_jpeg_outline
from cxr.decode_cost import check_thread, jpeg_seconds, png_seconds
from cxr.errors import CorruptImage, ImageError, NeedsWorker, NotARadiograph, TooLarge
from cxr.radiograph import ImageWarning, Metadata, Processing, Radiograph, WarningCode
from cxr.size import check_size, jpeg_reduction

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"

DEPTHS_BITS = (8, 10, 12, 14, 16)
"""Depths at which detectors write; a 16-bit PNG is read at the smallest that holds its brightest
pixel."""

SCALABLE_MODES = {"L": "L", "RGB": "YCbCr"}
"""JPEGs that libjpeg can give at a power of two less, and how they are asked for."""

NEUTRAL_CHROMA = 128
MAX_GREY_CHROMA = 6
"""Distance from neutral that JPEG's rounding may leave in a grey picture; about 10 levels between
channels."""

MAX_EXIF_TAGS = 512

GREY_MODES = frozenset({"1", "L", "LA", "I;16", "I;16B", "I"})


def read_png(data: bytes, *, max_pixels: int, in_thread: bool = False) -> Radiograph:
    """Read a PNG of 1 to 16 bits, grey or colour; transparency is dropped.

    Raises:
        ImageError: not one picture, too small, too large, or not decodable to its end.
        NeedsWorker: it is read `in_thread` and may take long.
    """
    with _opened(data, "PNG", max_pixels) as image:
        if in_thread:
            check_thread(_png_seconds(image, len(data)), image.height * image.width)
        if getattr(image, "n_frames", 1) != 1:
            raise NotARadiograph("The file holds several frames; one radiograph is expected.")
        color, deep = _has_color(image), image.mode.startswith("I")
        pixels_HW, warnings = _scale_depth(np.asarray(image)) if deep else (_grey(image), ())
        pixels_HW = _upright(pixels_HW, image.info.get("exif", b""))
    processing = Processing(format="png", rows=pixels_HW.shape[0], columns=pixels_HW.shape[1])
    return Radiograph(pixels_HW, Metadata(), processing, (*warnings, *_color_warnings(color=color)))


def read_jpeg(
    data: bytes, *, max_pixels: int, size: int | None, in_thread: bool = False
) -> Radiograph:
    """Read a JPEG, turned as its EXIF says, averaged while decoding as far as `preprocess` would
    for `size`.

    Raises:
        ImageError: too small, too large, or not decodable to its end.
        NeedsWorker: it is read `in_thread` and may take long.
    """
    outline = read_jpeg_outline(data)
    check_size(outline.rows, outline.columns, max_pixels=max_pixels)
    if in_thread:
        check_thread(jpeg_seconds(outline), outline.rows * outline.columns)
    with _opened(outline.bare, "JPEG", max_pixels) as image:
        columns, rows = image.width, image.height
        reduction = jpeg_reduction(rows, columns, size) if image.mode in SCALABLE_MODES else 1
        if image.mode in SCALABLE_MODES:
            # YCbCr as it is stored: Y is the brightness, and Cb and Cr tell whether there is colour
            # at all.
            image.draft(SCALABLE_MODES[image.mode], (columns // reduction, rows // reduction))
        color = _has_color(image)
        upright = _upright(_grey(image), outline.exif)
    turned = upright.shape != (-(-rows // reduction), -(-columns // reduction))
    processing = Processing(
        format="jpeg", rows=columns if turned else rows, columns=rows if turned else columns
    )
    return Radiograph(upright, Metadata(), processing, _color_warnings(color=color), reduction)


@contextmanager
def _opened(data: bytes, kind: str, max_pixels: int) -> Iterator[Image.Image]:
    """Open a picture, check its stated size, and translate Pillow's errors."""
    try:
        with Image.open(BoundedReads(data), formats=(kind,)) as image:
            check_size(image.height, image.width, max_pixels=max_pixels)
            yield image
    except (ImageError, NeedsWorker, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise TooLarge(f"The image has more than {max_pixels} pixels.") from exc
    except (
        Exception
    ) as exc:  # Pillow raises OSError, ValueError, SyntaxError, struct.error, zlib.error and more
        raise CorruptImage(f"The {kind} can't be decoded whole.") from exc


def _png_seconds(image: Image.Image, num_bytes: int) -> float:
    """Return how long a PNG may take, by what Pillow has read of it."""
    tiles = getattr(image, "tile", ())
    raw_mode = str(tiles[0].args) if tiles else ""
    samples, _, depth = raw_mode.partition(";")
    bits = len(samples) * int(re.sub(r"\D", "", depth) or 8)
    is_adam7 = bool(image.info.get("interlace"))
    is_color = image.mode not in GREY_MODES
    return png_seconds(
        num_bytes, image.height * image.width, bits, is_color=is_color, is_adam7=is_adam7
    )


def _grey(image: Image.Image) -> NDArray[np.uint8]:
    """Brightness of a picture, transparency dropped."""
    if image.mode in ("LA", "YCbCr"):
        return np.asarray(image.getchannel(0))
    if image.mode in ("PA", "P", "CMYK"):
        image = image.convert("RGB")
    return np.asarray(image.convert("L"))


def _upright(pixels_HW: NDArray[np.uint8], exif: bytes) -> NDArray[np.uint8]:
    """Turn a picture as its EXIF says (EXIF 2.32, tag 0x0112).

    Only that one number is read: Pillow would copy every tag's value, as often and as
    large as a hostile file says.
    """
    orientation = _orientation(exif.removeprefix(b"Exif\0\0"))
    if orientation >= 5:
        pixels_HW = pixels_HW.T
    mirrored, flipped = orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8)
    return np.ascontiguousarray(pixels_HW[:: -1 if flipped else 1, :: -1 if mirrored else 1])


def _orientation(tiff: bytes) -> int:
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return 1
    (place,) = struct.unpack_from(f"{order}L", tiff, 4)
    for entry in range(place + 2, min(place + 2 + 12 * MAX_EXIF_TAGS, len(tiff) - 11), 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHLH", tiff, entry)
        if tag == 0x0112:
            return int(value) if kind == 3 and 1 <= value <= 8 else 1
    return 1


def _scale_depth(
    stored_HW: NDArray[np.uint16] | NDArray[np.int32],
) -> tuple[NDArray[np.uint8], tuple[ImageWarning, ...]]:
    """Scale a 16-bit grey picture to 8 bits from the depth that it really uses."""
    brightest = int(stored_HW.max())
    bits = next(bits for bits in DEPTHS_BITS if brightest < 2**bits)
    table_V = np.rint(np.arange(2**bits) * (255 / (2**bits - 1))).astype(np.uint8)
    pixels_HW = np.empty(stored_HW.shape, np.uint8)
    for row, stored_W in zip(pixels_HW, stored_HW, strict=True):  # numpy widens what it indexes
        np.take(table_V, stored_W, out=row, mode="clip")
    guessed = ImageWarning(
        WarningCode.INTENSITY_GUESSED,
        f"The PNG has 16 bits and uses {bits}; its grey scale was guessed.",
    )
    return pixels_HW, () if bits == DEPTHS_BITS[-1] else (guessed,)


def _has_color(image: Image.Image) -> bool:
    """Tell whether any pixel is visibly coloured; many grey radiographs are stored with three equal
    channels.
    """
    if image.mode in GREY_MODES:
        return False
    chroma = (image if image.mode == "YCbCr" else image.convert("RGB").convert("YCbCr")).split()[1:]
    low, high = zip(*(plane.getextrema() for plane in chroma), strict=True)
    return bool(max(max(high) - NEUTRAL_CHROMA, NEUTRAL_CHROMA - min(low)) > MAX_GREY_CHROMA)


def _color_warnings(*, color: bool) -> tuple[ImageWarning, ...]:
    return (
        (
            ImageWarning(
                WarningCode.COLOR_INPUT, "The picture has colours; their brightness was used."
            ),
        )
        if color
        else ()
    )
