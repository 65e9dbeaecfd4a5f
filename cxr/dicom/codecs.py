"""From a data set's PixelData to stored values: which decoder reads which transfer syntax, and why.

Shape suffixes: H rows, W columns, S samples a pixel.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import imagecodecs
import numpy as np
import pydicom.uid as uids
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from cxr.dicom.header import transfer_syntax
from cxr.dicom.scope import whole_number
from cxr.errors import CorruptImage, ImageError, TooLarge, UnsupportedFormat

Stored = NDArray[Any]
"""Stored values, uint8 or uint16 or int16, [H, W] or [H, W, S]."""


@dataclass(frozen=True, slots=True)
class Codec:
    """One way to read a frame, and where it may run: codecs that can take long run where they can be stopped."""

    name: Literal["native", "rle", "pillow", "jpeg", "jpeg-ls", "jpeg-2000"]
    in_worker: bool


_NATIVE = Codec("native", in_worker=False)
# packbits of imagecodecs: ten times faster than pydicom's own, and without the interpreter's lock.
_RLE = Codec("rle", in_worker=False)
# Pillow fails loudly on a truncated stream, releases the lock, and averages for free (DCT scaling).
_PILLOW = Codec("pillow", in_worker=False)
# libjpeg-turbo 3, CharLS and OpenJPEG by imagecodecs (BSD): 12 bits and lossless, no GPL code.
_JPEG = Codec("jpeg", in_worker=True)
_JPEG_LS = Codec("jpeg-ls", in_worker=True)
_JPEG_2000 = Codec("jpeg-2000", in_worker=True)

CODECS: dict[UID, Codec] = {
    uids.ImplicitVRLittleEndian: _NATIVE,
    uids.ExplicitVRLittleEndian: _NATIVE,
    uids.ExplicitVRBigEndian: _NATIVE,
    uids.DeflatedExplicitVRLittleEndian: _NATIVE,
    uids.RLELossless: _RLE,
    uids.JPEGBaseline8Bit: _PILLOW,
    uids.JPEGExtended12Bit: _JPEG,
    uids.JPEGLossless: _JPEG,
    uids.JPEGLosslessSV1: _JPEG,
    uids.JPEGLSLossless: _JPEG_LS,
    uids.JPEGLSNearLossless: _JPEG_LS,
    uids.JPEG2000Lossless: _JPEG_2000,
    uids.JPEG2000: _JPEG_2000,
    uids.HTJ2KLossless: _JPEG_2000,
    uids.HTJ2KLosslessRPCL: _JPEG_2000,
    uids.HTJ2K: _JPEG_2000,
}
"""Every transfer syntax that is read; all others are refused by name."""

FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
"""JPEG's start-of-frame markers (T.81 table B.1), and JPEG-LS's (T.87)."""

_DECODE: dict[str, Callable[[bytes], Stored]] = {
    "jpeg": imagecodecs.jpeg_decode,
    "jpeg-ls": imagecodecs.jpegls_decode,
    "jpeg-2000": imagecodecs.jpeg2k_decode,
}


def codec_of(syntax: UID) -> Codec:
    """Give the codec of a transfer syntax; raises `UnsupportedFormat`."""
    try:
        return CODECS[syntax]
    except KeyError as exc:
        raise UnsupportedFormat("The DICOM file's transfer syntax can't be read by this service.") from exc


def read_stored(dataset: Dataset, *, max_pixels: int, reduction: int = 1) -> Stored:
    """Decode the one frame of a data set.

    Args:
        dataset: as `read_header` gives it, already in scope.
        max_pixels: limit on what the codestream itself says it holds.
        reduction: power of two (up to 8) by which a JPEG baseline may be averaged while decoding;
            only for one-sample images, others come whole.

    Returns:
        Stored values; colour is RGB or YBR as the data set says, interleaved.

    Raises:
        CorruptImage: it can't be decoded whole, or its size is not the header's.
        TooLarge: the codestream is larger than the limit.
    """
    codec = codec_of(transfer_syntax(dataset.file_meta))
    rows, columns = whole_number(dataset, "Rows"), whole_number(dataset, "Columns")
    try:
        if codec is _NATIVE:
            return pixel_array(dataset, raw=True, index=0)
        frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
        if codec is _RLE:
            return _decode_rle(frame, dataset)
        _check_codestream(frame, rows, columns, max_pixels)
        stored = _decode_pillow(frame, reduction) if codec is _PILLOW else _DECODE[codec.name](frame)
    except (ImageError, MemoryError):
        raise
    except Exception as exc:  # each codec raises errors of its own
        raise CorruptImage("The pixel data can't be decoded whole.") from exc
    if stored.shape[:2] != (-(-rows // reduction), -(-columns // reduction)):
        raise CorruptImage("The pixel data's size is not the one that the header states.")
    return stored


def _decode_pillow(frame: bytes, reduction: int) -> Stored:
    with Image.open(BytesIO(frame), formats=("JPEG",)) as image:
        if image.mode == "L" and reduction > 1:
            image.draft("L", (image.width // reduction, image.height // reduction))
        return np.asarray(image)


def _decode_rle(frame: bytes, dataset: Dataset) -> Stored:
    """Decode RLE Lossless (PS3.5 Annex G): one PackBits segment for each byte of each sample, high bytes first."""
    rows, columns = whole_number(dataset, "Rows"), whole_number(dataset, "Columns")
    samples, width = whole_number(dataset, "SamplesPerPixel"), whole_number(dataset, "BitsAllocated") // 8
    count, *starts = struct.unpack("<16L", frame[:64])
    if count != samples * width:
        raise CorruptImage("The RLE frame has another number of segments than its samples need.")
    ends = [*starts[1:count], len(frame)]
    planes = np.empty((samples, rows * columns, width), np.uint8)
    for index, (start, end) in enumerate(zip(starts[:count], ends, strict=True)):
        plane = imagecodecs.packbits_decode(frame[start:end], out=planes.shape[1])
        sample, byte = divmod(index, width)
        planes[sample, :, width - 1 - byte] = np.frombuffer(plane, np.uint8, count=planes.shape[1])
    stored = planes.view(f"<u{width}").reshape(samples, rows, columns)
    return stored[0] if samples == 1 else np.moveaxis(stored, 0, -1)


def _check_codestream(frame: bytes, rows: int, columns: int, max_pixels: int) -> None:
    """Compare the size that the codestream states with the header's, before any memory is taken for it."""
    stated = _jpeg_2000_size(frame) if b"\xff\x4f\xff\x51" in frame[:512] else _jpeg_size(frame)
    if stated[0] * stated[1] > max_pixels:
        raise TooLarge(f"The compressed image has more than {max_pixels} pixels.")
    if stated != (rows, columns):
        raise CorruptImage("The compressed image's size is not the one that the header states.")


def _jpeg_size(frame: bytes) -> tuple[int, int]:
    """Rows and columns of a JPEG or JPEG-LS stream's frame header (ITU-T T.81 B.2.2)."""
    for marker, place in _jpeg_segments(frame):
        if marker in FRAME_HEADERS:
            rows, columns = struct.unpack(">HH", frame[place + 5 : place + 9])
            return rows, columns
    raise CorruptImage("The compressed image has no frame header.")


def _jpeg_segments(frame: bytes) -> Iterator[tuple[int, int]]:
    """Marker and place of each segment before the first scan; raises `struct.error` where it is cut short."""
    place = 2
    while place + 4 <= len(frame):
        if frame[place] != 0xFF:
            return
        if frame[place + 1] == 0xFF:  # fill byte
            place += 1
            continue
        yield frame[place + 1], place
        place += 2 + struct.unpack(">H", frame[place + 2 : place + 4])[0]


def _jpeg_2000_size(frame: bytes) -> tuple[int, int]:
    """Rows and columns of a JPEG 2000 codestream's SIZ segment (ITU-T T.800 A.5.1)."""
    place = frame.index(b"\xff\x4f\xff\x51") + 8
    right, bottom, left, top = struct.unpack(">4L", frame[place : place + 16])
    return bottom - top, right - left
