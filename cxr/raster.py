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

from cxr.bounded_reads import BoundedReads
from cxr.codestream import read_jpeg_outline
from cxr.decode_cost import check_thread, jpeg_seconds, png_seconds
from cxr.deep_png import MAX_CHUNKS, DeepImage, decode_deep_png, is_deep_png, scale_depth
from cxr.errors import CorruptImage, ImageError, NeedsWorker, NotARadiograph, TooLarge
from cxr.image_size import check_size, jpeg_reduction
from cxr.jpeg import decode_jpeg
from cxr.orientation import exchanges_sides, read_exif_orientation, upright
from cxr.radiograph import Metadata, Processing, Radiograph
from cxr.scan_damage import has_lost_piece, looks_torn
from cxr.warning_codes import LOOKS_DAMAGED, ImageWarning, WarningCode

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"

NEUTRAL_CHROMA = 128
MAX_GREY_CHROMA = 6
"""Distance from neutral that JPEG's rounding may leave in a grey picture; about 10 levels between
channels."""

GREY_MODES = frozenset({"1", "L", "LA", "I;16", "I;16B", "I"})


def read_png(data: bytes, *, max_pixels: int, in_thread: bool = False) -> Radiograph:
    """Read a PNG of 1 to 16 bits, grey or colour; transparency is dropped.

    Raises:
        ImageError: not one picture, too small, too large, or not decodable to its end.
        NeedsWorker: it is read `in_thread` and may take long.
    """
    warnings: tuple[ImageWarning, ...] = ()
    _check_one_header(data)
    with _opened(data, "PNG", max_pixels) as image:
        if in_thread:
            check_thread(_png_seconds(image, len(data)), image.height * image.width)
        if getattr(image, "n_frames", 1) != 1:
            raise NotARadiograph("The file holds several frames; one radiograph is expected.")
        if is_deep_png(data):
            # Pillow drops the low bytes of deep colours, and of grey with alpha.
            is_grey = image.mode.startswith("I")
            deep = scale_depth(np.asarray(image) if is_grey else decode_deep_png(data))
            pixels_HW, color = deep.pixels_HW, deep.has_color
            warnings = _depth_warnings(deep)
        else:
            pixels_HW, color = _grey(image), _has_color(image)
        orientation = read_exif_orientation(image.info.get("exif", b""))
    pixels_HW = upright(pixels_HW, orientation)
    processing = Processing(
        format="png",
        rows=pixels_HW.shape[0],
        columns=pixels_HW.shape[1],
        orientation=orientation,
    )
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
    rows, columns = outline.rows, outline.columns
    check_size(rows, columns, max_pixels=max_pixels)
    if in_thread:
        check_thread(jpeg_seconds(outline), rows * columns)
    reduction = jpeg_reduction(rows, columns, size)
    samples = decode_jpeg(outline, reduction=reduction)
    color = False
    if samples.ndim == 3:
        image = Image.fromarray(samples, "CMYK" if samples.shape[2] == 4 else "RGB")
        color, samples = _has_color(image), _grey(image)
    orientation = read_exif_orientation(outline.exif)
    if exchanges_sides(orientation):
        rows, columns = columns, rows
    processing = Processing(format="jpeg", rows=rows, columns=columns, orientation=orientation)
    warnings = _color_warnings(color=color)
    if has_lost_piece(outline) or looks_torn(samples, outline.block_rows // reduction):
        warnings = (*warnings, LOOKS_DAMAGED)
    return Radiograph(upright(samples, orientation), Metadata(), processing, warnings, reduction)


def _check_one_header(data: bytes) -> None:
    """Raise `CorruptImage` if a PNG states its size twice: decoders differ on which one holds."""
    start = len(PNG_MAGIC)
    for place in range(MAX_CHUNKS):
        length, kind = struct.unpack(">L4s", data[start : start + 8].ljust(8, b"\0"))
        if kind == b"IHDR" and place:
            raise CorruptImage("The PNG has two headers, or one behind another chunk.")
        start += 12 + length
        if kind == b"IDAT" or start > len(data):
            return


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
    passes = 2 if is_color and depth.startswith("16") else 1
    return png_seconds(
        num_bytes * passes,
        image.height * image.width,
        bits * passes,
        is_color=is_color,
        is_adam7=is_adam7,
    )


def _grey(image: Image.Image) -> NDArray[np.uint8]:
    """Return the brightness of a picture, transparency dropped."""
    if image.mode == "LA":
        return np.asarray(image.getchannel(0))
    if image.mode in ("PA", "P", "CMYK"):
        image = image.convert("RGB")
    return np.asarray(image if image.mode == "L" else image.convert("L"))


def _depth_warnings(deep: DeepImage) -> tuple[ImageWarning, ...]:
    if deep.is_full_scale:
        return ()
    detail = f"The PNG has 16 bits and was read as one of {deep.bits}; its grey scale was guessed."
    return (ImageWarning(WarningCode.INTENSITY_GUESSED, detail),)


def _has_color(image: Image.Image) -> bool:
    """Tell whether any pixel is visibly coloured; many grey radiographs are stored with three equal
    channels.
    """
    if image.mode in GREY_MODES:
        return False
    chroma = image.convert("RGB").convert("YCbCr").split()[1:]
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
