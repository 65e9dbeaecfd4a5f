"""RLE Lossless (PS3.5 Annex G): a PackBits segment for each byte of each sample, high bytes first.

Shape suffixes: H rows, W columns, S samples a pixel.
"""

import struct
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from cxr.dicom.layout import PixelLayout
from cxr.errors import CorruptImage

_HEADER_BYTES = 64
_DAMAGED = "The RLE image is damaged; a segment has more or less than the image's pixels."


def decode_rle(frame: bytes, layout: PixelLayout) -> NDArray[Any]:
    """Decode one frame: [H, W] or [H, W, S].

    Raises:
        CorruptImage: a segment does not fit the layout.
    """
    width = layout.bits_allocated // 8
    planes = np.empty((layout.samples, layout.rows * layout.columns, width), np.uint8)
    for index, segment in enumerate(_segments(frame, layout.samples * width)):
        sample, byte = divmod(index, width)
        planes[sample, :, width - 1 - byte] = _decode_segment(segment, planes.shape[1])
    stored = planes.view(f"<u{width}").reshape(layout.samples, layout.rows, layout.columns)
    return stored[0] if layout.samples == 1 else np.moveaxis(stored, 0, -1)


def _segments(frame: bytes, expected: int) -> list[bytes]:
    if len(frame) < _HEADER_BYTES:
        raise CorruptImage("The RLE frame is cut short.")
    count, *starts = struct.unpack_from("<16L", frame)
    if count != expected:
        raise CorruptImage("The RLE frame has another number of segments than its samples need.")
    ends = [*starts[1:count], len(frame)]
    return [frame[start:end] for start, end in zip(starts[:count], ends, strict=True)]


def _decode_segment(segment: bytes, count: int) -> NDArray[np.uint8]:
    """Decode a segment to `count` bytes, and to no more than its padding adds.

    Padding is NULs (PS3.5 G.3.1 and G.5), of which each pair reads as one further byte.
    """
    padding = len(segment) - len(segment.rstrip(b"\0"))
    try:
        decoded = imagecodecs.packbits_decode(segment, out=count + (padding + 1) // 2)
    except Exception as exc:  # cut short, or more than fits
        raise CorruptImage(_DAMAGED) from exc
    if len(decoded) < count:
        raise CorruptImage(_DAMAGED)
    return np.frombuffer(decoded, np.uint8, count)
