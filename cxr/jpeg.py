"""Decode a JPEG stream to its samples, whole or not at all; its markers are in `cxr.codestream`.

libjpeg fills what is missing of a damaged scan, and reports a warning. simplejpeg raises an error
for each of these warnings. It reads 8-bit streams only. For 12-bit and lossless ones imagecodecs
is the decoder that we know under a free licence. It drops the warnings, so their scans are checked
here by a second decode.

Shape suffixes: H rows, W columns, S samples a pixel, U coded units.
"""

import re
from typing import Any

import imagecodecs
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from cxr.codestream import JPEG_START, JpegStructure
from cxr.errors import CorruptImage, ImageError

_ADOBE = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0"
"""An Adobe segment up to its last byte, the transform: 0 for RGB and CMYK, 1 YCbCr, 2 YCCK."""

_END = b"\xff\xd9"

_DAMAGED = "The compressed image is damaged; parts of it are missing or overwritten."

_MARKER = re.compile(rb"\xff+[\xd0-\xd7\xd9]", re.DOTALL)
"""A restart marker or the end, with the fill bytes before it (T.81 B.1.1.2)."""

_FURTHER = b"\xaa\x55\xaa\x55"
"""Bytes that a whole scan does not need; a decoder fills what is missing with zeros."""

_PIXELS_A_BYTE = 8
_BLOCKS_A_BYTE = 4
"""Most units that one byte of a scan can hold: a pixel takes one bit at least, a block two."""


def decode_jpeg(
    outline: JpegStructure, *, reduction: int = 1, luma: bool = False
) -> NDArray[np.uint8]:
    """Decode an 8-bit DCT-based JPEG, averaging by `reduction` (1, 2, 4 or 8) on the way.

    Returns:
        uint8 [H, W] of a grey image or if `luma` is set; else [H, W, 3] as RGB, or [H, W, 4] as
        CMYK, 0 no ink.

    Raises:
        CorruptImage: libjpeg reports any damage, or the stream is of another kind.
    """
    samples = outline.samples
    color = {1: "GRAY", 3: "GRAY" if luma else "RGB", 4: "CMYK"}.get(samples)
    if color is None or outline.frame.is_lossless or outline.frame.bits != 8:
        raise CorruptImage("The compressed image is of a kind that is not read.")
    segment = _color_segment(outline)
    try:
        return _strict(outline.stream(segment), color, outline, reduction)
    except ValueError:
        # Some encoders pad a scan with zeros. If the padding is all that is wrong, nothing of the
        # image is missing.
        coded = outline.coded
        unpadded = coded.removesuffix(_END).rstrip(b"\0") + _END
        if len(unpadded) == len(coded):
            raise CorruptImage(_DAMAGED) from None
    try:
        head = JPEG_START + segment + outline.head
        return _strict(head + unpadded, color, outline, reduction)
    except ValueError as exc:
        raise CorruptImage(_DAMAGED) from exc


def _strict(
    stream: bytes | memoryview, color: str, outline: JpegStructure, reduction: int
) -> NDArray[np.uint8]:
    samples_HWS = simplejpeg.decode_jpeg(
        stream,
        color,
        min_height=-(-outline.rows // reduction),
        min_width=-(-outline.columns // reduction),
        min_factor=reduction,
        strict=True,
    )
    samples = np.asarray(samples_HWS, np.uint8)
    if color == "GRAY":
        return samples[..., 0]
    return 255 - samples if outline.is_inverted else samples


def _color_segment(outline: JpegStructure) -> bytes:
    """Return an Adobe segment that leaves the decoder no doubt about a colour image.

    Lossless JPEG has no colour transform.
    """
    if outline.samples != 3:
        return b""
    return _ADOBE + (b"\0" if outline.frame.is_lossless or outline.color == "rgb" else b"\1")


def decode_deep_jpeg(outline: JpegStructure) -> NDArray[Any]:
    """Decode a 12-bit or lossless JPEG; RGB if it has three components.

    Raises:
        CorruptImage: the decoder gives up, or the scan holds more or less than the image.
    """
    head = JPEG_START + _color_segment(outline) + outline.head
    try:
        coded = outline.coded
        image = np.asarray(imagecodecs.jpeg_decode(head + coded))
        if image.shape[:2] != (outline.rows, outline.columns):
            raise CorruptImage(_DAMAGED)
        if not _can_be_checked(outline):
            return image
        # Some encoders end a scan with one byte more than it needs: zeros or ones.
        is_padded = coded.endswith((b"\0\xff\xd9", b"\xff\xff\xd9"))
        for count in (1, 2, 3) if is_padded or _ends_saturated(image, outline) else (1,):
            altered = np.asarray(imagecodecs.jpeg_decode(head + _with_other_ends(outline, count)))
            if _ends_where_altered(image != altered, outline, count):
                _check_ends(head, outline, image)
                return image
    except ImageError:
        raise
    except Exception as exc:
        raise CorruptImage(_DAMAGED) from exc
    raise CorruptImage(_DAMAGED)


def _check_ends(head: bytes, outline: JpegStructure, image: NDArray[Any]) -> None:
    """Raise `CorruptImage` if bytes behind the scan's end change the image: some are missing."""
    longer = np.asarray(imagecodecs.jpeg_decode(head + _with_further_bytes(outline)))
    if not np.array_equal(longer, image):
        raise CorruptImage(_DAMAGED)


def _with_further_bytes(outline: JpegStructure) -> bytes:
    """Add bytes before each restart marker and before the end."""
    coded = outline.coded
    start = 2 + int.from_bytes(coded[2:4], "big")
    scan = _MARKER.sub(lambda marker: _FURTHER + marker.group(), coded[start:])
    return coded[:start] + scan


def _ends_saturated(image: NDArray[Any], outline: JpegStructure) -> bool:
    """Tell whether the last block is black or white, so that a change may not show."""
    if outline.frame.is_lossless:
        return False
    rows, columns = ((length - 1) // 8 * 8 for length in image.shape[:2])
    block = image[rows:, columns:]
    return bool(block.max() == 0 or block.min() == 2**outline.frame.bits - 1)


def _can_be_checked(outline: JpegStructure) -> bool:
    """Tell whether units follow each other in one scan, and none is blended with its neighbours."""
    return outline.coded.count(b"\xff\xda") == 1 and not outline.is_subsampled


def _with_other_ends(outline: JpegStructure, count: int) -> bytes:
    """Replace the last bytes before each restart marker and before the end, `count` of them."""
    coded = outline.coded
    start = 2 + int.from_bytes(coded[2:4], "big")
    parts = [coded[:start]]
    for marker in _MARKER.finditer(coded, start):
        end = marker.start()
        for _ in range(count):  # a data byte 0xFF is followed by a stuffed 0
            end -= 2 if coded[end - 2 : end] == b"\xff\0" else 1
        # The first bit of an intact scan's last byte means something, so it must change.
        first = coded[end] ^ 0x80
        changed = bytes((first, 0)) if first == 0xFF else bytes((first,))
        parts += [coded[start:end], changed, marker.group()]
        start = marker.end()
    return b"".join(parts)


def _ends_where_altered(changed: NDArray[np.bool_], outline: JpegStructure, count: int) -> bool:
    """Tell whether the last units of each interval between restarts changed, and no others.

    No change means that the scan holds more than the image. An early one means that it holds less.

    Raises:
        CorruptImage: it holds less.
    """
    changed_U = _changed_units(changed, 1 if outline.frame.is_lossless else 8)
    tolerance = count * (_PIXELS_A_BYTE if outline.frame.is_lossless else _BLOCKS_A_BYTE)
    length = outline.restart_units or len(changed_U)
    is_needed = True
    for start in range(0, len(changed_U), length):
        interval_U = changed_U[start : start + length]
        positions = np.flatnonzero(interval_U)
        if not positions.size:
            is_needed = False
            continue
        # A lossless sample is its neighbour plus a difference: altered differences may cancel out.
        is_last_changed = interval_U[-1] or outline.frame.is_lossless
        if positions[0] < len(interval_U) - tolerance or not is_last_changed:
            raise CorruptImage(_DAMAGED)
    return is_needed


def _changed_units(changed: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Return whether any sample of a coded unit changed, in the order of coding."""
    changed_HW = changed.any(axis=2) if changed.ndim == 3 else changed
    if side == 1:
        return changed_HW.ravel()
    rows, columns = (-(-length // side) for length in changed_HW.shape)
    padded_HW = np.zeros((rows * side, columns * side), np.bool_)
    padded_HW[: changed_HW.shape[0], : changed_HW.shape[1]] = changed_HW
    return padded_HW.reshape(rows, side, columns, side).any(axis=(1, 3)).ravel()
