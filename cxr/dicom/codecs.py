"""From a data set's PixelData to stored values: which decoder reads which transfer syntax, and why.

Shape suffixes: H rows, W columns, S samples a pixel.
"""

import struct
from collections.abc import Callable
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

from cxr.codestream import read_jpeg_2000_outline, read_jpeg_outline
from cxr.decode_cost import check_thread, jpeg_seconds, stored_seconds
from cxr.dicom.header import text, transfer_syntax, whole_number
from cxr.errors import CorruptImage, ImageError, TooLarge, UnsupportedFormat

Stored = NDArray[Any]
"""Stored values, uint8 or uint16 or int16, [H, W] or [H, W, S]."""


@dataclass(frozen=True, slots=True)
class Codec:
    """One way to read a frame, and whether it may take long and so runs in a worker process."""

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

_DECODE: dict[str, Callable[[bytes], Stored]] = {
    "jpeg": imagecodecs.jpeg_decode,
    "jpeg-ls": imagecodecs.jpegls_decode,
}


def codec_of(syntax: UID) -> Codec:
    """Return the codec of a transfer syntax; raises `UnsupportedFormat`."""
    try:
        return CODECS[syntax]
    except KeyError as exc:
        raise UnsupportedFormat(
            "The DICOM file's transfer syntax can't be read by this service."
        ) from exc


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded frame: [H, W], or [H, W, 3] as RGB, or as YBR if `is_ybr`."""

    stored: Stored
    is_compressed: bool
    is_ybr: bool


def read_frame(dataset: Dataset, *, max_pixels: int, reduction: int = 1) -> Frame:
    """Decode the one frame of a data set.

    Args:
        dataset: as `read_header` gives it, already in scope.
        max_pixels: limit on what the codestream itself says it holds.
        reduction: power of two (up to 8) by which a JPEG baseline may be averaged while decoding;
            only for one-sample images, others come whole.

    Raises:
        CorruptImage: it can't be decoded whole, or its size is not the header's.
        TooLarge: the codestream is larger than the limit.
        DecodeLimit: it has more scans than any picture needs.
    """
    codec = codec_of(transfer_syntax(dataset.file_meta))
    rows, columns = whole_number(dataset, "Rows"), whole_number(dataset, "Columns")
    ybr = text(dataset, "PhotometricInterpretation").startswith("YBR")
    try:
        if codec is _NATIVE:
            # Unused bits are left to `pixels`: pydicom would take the stored ones to be the lowest,
            # whatever HighBit says.
            stored = pixel_array(dataset, raw=True, index=0, correct_unused_bits=False)
            return Frame(stored, is_compressed=False, is_ybr=ybr)
        stream = get_frame(dataset.PixelData, 0, number_of_frames=1)
        if codec is _RLE:
            return Frame(_decode_rle(stream, dataset), is_compressed=False, is_ybr=ybr)
        if codec is _JPEG_2000:
            outline = read_jpeg_2000_outline(stream)
            _check_stated(outline.rows, outline.columns, rows, columns, max_pixels)
            frame = Frame(
                imagecodecs.jpeg2k_decode(stream),
                is_compressed=True,
                is_ybr=ybr and not outline.undoes_ybr,
            )
        else:
            frame = _decode_jpeg(stream, dataset, codec, max_pixels, reduction)
    except (ImageError, MemoryError):
        raise
    except Exception as exc:  # each codec raises errors of its own
        raise CorruptImage("The pixel data can't be decoded whole.") from exc
    if frame.stored.shape[:2] != (-(-rows // reduction), -(-columns // reduction)):
        raise CorruptImage("The pixel data's size is not the one that the header states.")
    return frame


def check_frame(dataset: Dataset) -> None:
    """Raise `NeedsWorker` if a frame may take long to decode; other errors show while decoding."""
    codec = codec_of(transfer_syntax(dataset.file_meta))
    pixels = whole_number(dataset, "Rows") * whole_number(dataset, "Columns")
    if codec is _PILLOW:
        try:
            outline = read_jpeg_outline(get_frame(dataset.PixelData, 0, number_of_frames=1))
        except Exception:
            return
        check_thread(jpeg_seconds(outline), outline.rows * outline.columns)
        return
    samples = whole_number(dataset, "SamplesPerPixel", default=1)
    num_bytes = pixels * samples * whole_number(dataset, "BitsAllocated", default=16) // 8
    photometric = text(dataset, "PhotometricInterpretation")
    seconds = stored_seconds(
        num_bytes,
        pixels,
        is_packed=codec is _RLE,
        is_color=not photometric.startswith("MONOCHROME"),
    )
    # The file's own length bounds the memory that native pixels need.
    check_thread(seconds, 0 if codec is _NATIVE else pixels)


def _decode_jpeg(
    stream: bytes, dataset: Dataset, codec: Codec, max_pixels: int, reduction: int
) -> Frame:
    """Decode JPEG or JPEG-LS; only DCT-based decoders undo a colour transform by themselves."""
    rows, columns = whole_number(dataset, "Rows"), whole_number(dataset, "Columns")
    photometric = text(dataset, "PhotometricInterpretation")
    outline = read_jpeg_outline(stream)
    _check_stated(outline.rows, outline.columns, rows, columns, max_pixels)
    if codec is _PILLOW:
        return Frame(
            _decode_pillow(outline.bare, reduction, photometric), is_compressed=True, is_ybr=False
        )
    is_dct = codec is _JPEG and transfer_syntax(dataset.file_meta) == uids.JPEGExtended12Bit
    return Frame(
        _DECODE[codec.name](stream),
        is_compressed=True,
        is_ybr=photometric.startswith("YBR") and not is_dct,
    )


def _decode_pillow(stream: bytes, reduction: int, photometric: str) -> Stored:
    with Image.open(BytesIO(stream), formats=("JPEG",)) as image:
        if image.mode == "L" and reduction > 1:
            image.draft("L", (image.width // reduction, image.height // reduction))
        elif photometric == "RGB" and "adobe_transform" not in image.info:
            image.draft(
                "YCbCr", image.size
            )  # libjpeg would undo a transform that the header says was never done
        return np.asarray(image)


def _check_stated(
    rows: int, columns: int, header_rows: int, header_columns: int, max_pixels: int
) -> None:
    """Compare the size that the codestream states with the header's, before any memory is taken for
    it.
    """
    if rows * columns > max_pixels:
        raise TooLarge(f"The compressed image has more than {max_pixels} pixels.")
    if (rows, columns) != (header_rows, header_columns):
        raise CorruptImage("The compressed image's size is not the one that the header states.")


def _decode_rle(frame: bytes, dataset: Dataset) -> Stored:
    """Decode RLE Lossless (PS3.5 Annex G): one PackBits segment for each byte of each sample, high
    bytes first.
    """
    rows, columns = whole_number(dataset, "Rows"), whole_number(dataset, "Columns")
    samples, width = (
        whole_number(dataset, "SamplesPerPixel"),
        whole_number(dataset, "BitsAllocated") // 8,
    )
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
