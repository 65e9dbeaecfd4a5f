"""PNG and JPEG bytes to a radiograph.

Shape suffixes: H rows, W columns.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cxr.errors import CorruptImage, ImageError, NotARadiograph, TooLarge
from cxr.radiograph import Caution, Metadata, Processing, Radiograph, WarningCode
from cxr.size import check_size, jpeg_reduction

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"

DEPTHS_BITS = (8, 10, 12, 14, 16)
"""Depths at which detectors write; a 16-bit PNG is read at the smallest that holds its brightest pixel."""

SCALABLE_MODES = {"L": "L", "RGB": "YCbCr"}
"""JPEGs that libjpeg can give at a power of two less, and how they are asked for."""

NEUTRAL_CHROMA = 128
MAX_GREY_CHROMA = 6
"""Distance from neutral that JPEG's rounding may leave in a grey picture; about 10 levels between channels."""

GREY_MODES = frozenset({"1", "L", "LA", "I;16", "I;16B", "I"})


def read_png(data: bytes, *, max_pixels: int) -> Radiograph:
    """Read a PNG of 1 to 16 bits, grey or colour; transparency is dropped.

    Raises:
        ImageError: not one picture, too small, too large, or not decodable to its end.
    """
    with _opened(data, "PNG", max_pixels) as image:
        if getattr(image, "n_frames", 1) != 1:
            raise NotARadiograph("The file holds several frames; one radiograph is expected.")
        color, deep = _has_color(image), image.mode.startswith("I")
        upright = ImageOps.exif_transpose(image)
        pixels_HW, cautions = _scale_depth(np.asarray(upright)) if deep else (_grey(upright), ())
    processing = Processing(format="png", rows=pixels_HW.shape[0], columns=pixels_HW.shape[1])
    return Radiograph(pixels_HW, Metadata(), processing, (*cautions, *_color_cautions(color=color)))


def read_jpeg(data: bytes, *, max_pixels: int, size: int | None) -> Radiograph:
    """Read a JPEG, turned as its EXIF says, averaged while decoding as far as `preprocess` would for `size`.

    Raises:
        ImageError: too small, too large, or not decodable to its end.
    """
    with _opened(data, "JPEG", max_pixels) as image:
        columns, rows = image.width, image.height
        reduction = jpeg_reduction(rows, columns, size) if image.mode in SCALABLE_MODES else 1
        if image.mode in SCALABLE_MODES:
            # YCbCr as it is stored: Y is the brightness, and Cb and Cr tell whether there is colour at all.
            image.draft(SCALABLE_MODES[image.mode], (columns // reduction, rows // reduction))
        color = _has_color(image)
        upright = _grey(ImageOps.exif_transpose(image))
    turned = upright.shape != (-(-rows // reduction), -(-columns // reduction))
    processing = Processing(format="jpeg", rows=columns if turned else rows, columns=rows if turned else columns)
    return Radiograph(upright, Metadata(), processing, _color_cautions(color=color), reduction)


@contextmanager
def _opened(data: bytes, kind: str, max_pixels: int) -> Iterator[Image.Image]:
    """Open a picture, check its stated size, and translate Pillow's errors."""
    try:
        with Image.open(BytesIO(data), formats=(kind,)) as image:
            check_size(image.height, image.width, max_pixels=max_pixels)
            yield image
    except (ImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise TooLarge(f"The image has more than {max_pixels} pixels.") from exc
    except Exception as exc:  # Pillow raises OSError, ValueError, SyntaxError, struct.error, zlib.error and more
        raise CorruptImage(f"The {kind} can't be decoded whole.") from exc


def _grey(image: Image.Image) -> NDArray[np.uint8]:
    """Brightness of a picture, transparency dropped."""
    if image.mode in ("LA", "YCbCr"):
        return np.asarray(image.getchannel(0))
    if image.mode in ("RGBA", "PA", "P", "CMYK"):
        image = image.convert("RGB")
    return np.asarray(image.convert("L"))


def _scale_depth(stored_HW: NDArray[np.uint16] | NDArray[np.int32]) -> tuple[NDArray[np.uint8], tuple[Caution, ...]]:
    """Bring a 16-bit grey picture to 8 bits from the depth that it really uses."""
    brightest = int(stored_HW.max())
    bits = next(bits for bits in DEPTHS_BITS if brightest < 2**bits)
    pixels_HW = np.rint(stored_HW * (255 / (2**bits - 1))).astype(np.uint8)
    guessed = Caution(WarningCode.INTENSITY_GUESSED, f"The PNG has 16 bits and uses {bits}; its grey scale was guessed.")
    return pixels_HW, () if bits == DEPTHS_BITS[-1] else (guessed,)


def _has_color(image: Image.Image) -> bool:
    """Tell whether any pixel is visibly coloured; many grey radiographs are stored with three equal channels."""
    if image.mode in GREY_MODES:
        return False
    chroma = (image if image.mode == "YCbCr" else image.convert("RGB").convert("YCbCr")).split()[1:]
    low, high = zip(*(plane.getextrema() for plane in chroma), strict=True)
    return bool(max(max(high) - NEUTRAL_CHROMA, NEUTRAL_CHROMA - min(low)) > MAX_GREY_CHROMA)


def _color_cautions(*, color: bool) -> tuple[Caution, ...]:
    return (Caution(WarningCode.COLOR_INPUT, "The picture has colours; their brightness was used."),) if color else ()
