"""Small pictures of the data set for its report, with the lesions' outlines if masks are known.

Shape suffixes: H rows, W columns, 3 colours.
"""

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr.decode import DecodeLimits, decode
from cxr.preprocess import PreprocessSpec, preprocess

SIDE_PIXELS = 256

_OUTLINE = np.array([234, 88, 12], dtype=np.float32)
_FILL = 0.18
_JPEG_QUALITY = 82


def picture(path: Path, mask_HW: NDArray[np.bool_] | None = None) -> str:
    """Return a file as a data URI: squeezed to a square, as a network sees it, with the edge of its
    mask.
    """
    radiograph = decode(path.read_bytes(), limits=DecodeLimits(), size=SIDE_PIXELS)
    image_HW = preprocess(radiograph, PreprocessSpec(size=SIDE_PIXELS))
    if mask_HW is None:
        return _data_uri(Image.fromarray(image_HW))
    return _data_uri(Image.fromarray(_outlined(image_HW, mask_HW)))


def _outlined(image_HW: NDArray[np.uint8], mask_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    small = Image.fromarray(mask_HW.astype(np.uint8) * 255).resize(
        (SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.BOX
    )
    inside_HW = np.asarray(small) > 96
    padded = np.pad(inside_HW, 1)
    core_HW = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    share_HW1 = np.where(inside_HW & ~core_HW, 1.0, _FILL * inside_HW)[:, :, None]
    return np.asarray(image_HW[:, :, None] * (1 - share_HW1) + _OUTLINE * share_HW1).astype(
        np.uint8
    )


def _data_uri(image: Image.Image) -> str:
    buffer = BytesIO()
    image.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
