"""From a data set's PixelData to stored values: which decoder reads which transfer syntax, and why.

Shape suffixes: H rows, W columns, S samples a pixel.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import imagecodecs
import pydicom.uid as uids
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from cxr.codestream import JpegStructure, read_jpeg_outline
from cxr.decode_cost import (
    check_thread,
    check_thread_of_native,
    jpeg_seconds,
    stored_seconds,
)
from cxr.dicom.encapsulation import only_fragment, single_frame
from cxr.dicom.header import element, transfer_syntax
from cxr.dicom.layout import PixelLayout
from cxr.dicom.rle import decode_rle
from cxr.errors import CorruptImage, ImageError, TooLarge, UnsupportedFormat
from cxr.jpeg import decode_deep_jpeg, decode_jpeg
from cxr.jpeg_2000 import read_jpeg_2000_outline
from cxr.scan_damage import has_lost_piece, looks_torn

Stored = NDArray[Any]
"""Stored values, uint8 or uint16 or int16, [H, W] or [H, W, S]."""


@dataclass(frozen=True, slots=True)
class Codec:
    """One way to read a frame, and whether it may take long and so runs in a worker process."""

    name: Literal["native", "rle", "jpeg", "deep-jpeg", "jpeg-ls", "jpeg-2000"]
    in_worker: bool


_NATIVE = Codec("native", in_worker=False)
# packbits of imagecodecs: ten times faster than pydicom's own, and without the interpreter's lock.
_RLE = Codec("rle", in_worker=False)
# simplejpeg refuses damaged scans, releases the lock, and averages for free (DCT scaling).
_JPEG = Codec("jpeg", in_worker=False)
# libjpeg-turbo 3, CharLS and OpenJPEG by imagecodecs (BSD): 12 bits and lossless, no GPL code.
_DEEP_JPEG = Codec("deep-jpeg", in_worker=True)
_JPEG_LS = Codec("jpeg-ls", in_worker=True)
_JPEG_2000 = Codec("jpeg-2000", in_worker=True)

CODECS: dict[UID, Codec] = {
    uids.ImplicitVRLittleEndian: _NATIVE,
    uids.ExplicitVRLittleEndian: _NATIVE,
    uids.ExplicitVRBigEndian: _NATIVE,
    uids.DeflatedExplicitVRLittleEndian: _NATIVE,
    uids.RLELossless: _RLE,
    uids.JPEGBaseline8Bit: _JPEG,
    uids.JPEGExtended12Bit: _DEEP_JPEG,
    uids.JPEGLossless: _DEEP_JPEG,
    uids.JPEGLosslessSV1: _DEEP_JPEG,
    uids.JPEGLSLossless: _JPEG_LS,
    uids.JPEGLSNearLossless: _JPEG_LS,
    uids.JPEG2000Lossless: _JPEG_2000,
    uids.JPEG2000: _JPEG_2000,
    uids.HTJ2KLossless: _JPEG_2000,
    uids.HTJ2KLosslessRPCL: _JPEG_2000,
    uids.HTJ2K: _JPEG_2000,
}
"""Every transfer syntax that is read; all others are refused by name."""


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
    """One decoded frame: [H, W], or [H, W, 3] as RGB, or as YBR if `is_ybr`.

    `is_repaired` tells that the codestream has other colours or another sign than the header
    states, `is_torn` that a scan looks damaged.
    """

    stored: Stored
    is_compressed: bool
    is_ybr: bool
    is_repaired: bool = False
    is_torn: bool = False


def read_frame(
    dataset: Dataset,
    layout: PixelLayout,
    *,
    max_pixels: int,
    reduction: int = 1,
    outline: JpegStructure | None = None,
) -> Frame:
    """Decode the one frame of a data set.

    Args:
        dataset: as `read_header` gives it, already in scope.
        layout: as `read_layout` gives it.
        max_pixels: limit on what the codestream itself says it holds.
        reduction: power of two (up to 8) by which a JPEG baseline may be averaged while decoding;
            only for one-sample images, others come whole.
        outline: as `check_frame` gave it, if it was asked.

    Raises:
        CorruptImage: it can't be decoded whole, or its size is not the header's.
        TooLarge: the codestream is larger than the limit.
        DecodeLimit: it has more scans than any picture needs.
    """
    codec = codec_of(transfer_syntax(dataset.file_meta))
    try:
        if codec is _NATIVE:
            # Unused bits are left to `pixels`: pydicom would take the stored ones to be the lowest,
            # whatever HighBit says.
            stored = pixel_array(dataset, raw=True, index=0, correct_unused_bits=False)
            return Frame(stored, is_compressed=False, is_ybr=layout.is_ybr)
        if codec is _JPEG and outline is not None:
            _check_stated(outline.rows, outline.columns, layout, max_pixels)
            frame = _decode_jpeg(outline, layout, codec, reduction)
        else:
            pixel_data = _pixel_data(dataset)
            if codec is _RLE:
                stored = decode_rle(single_frame(pixel_data), layout)
                return Frame(stored, is_compressed=False, is_ybr=layout.is_ybr)
            frame = _decode_stream(pixel_data, layout, codec, max_pixels, reduction)
        if 8 * frame.stored.itemsize < layout.bits_stored:  # the header is from before compression
            frame = replace(frame, is_repaired=True)
    except (ImageError, MemoryError):
        raise
    except Exception as exc:  # each codec raises errors of its own
        raise CorruptImage("The pixel data can't be decoded whole.") from exc
    if frame.stored.shape[:2] != (-(-layout.rows // reduction), -(-layout.columns // reduction)):
        raise CorruptImage("The pixel data's size is not the one that the header states.")
    return frame


def _pixel_data(dataset: Dataset) -> bytes:
    """Return the value of PixelData; one that was read is not copied into another element."""
    stored = element(dataset, "PixelData")
    is_raw = isinstance(stored, RawDataElement) and stored.VR in ("OB", "OW")
    value: bytes = stored.value if is_raw else dataset.PixelData
    return value


def _read_outline(pixel_data: bytes) -> JpegStructure:
    place = only_fragment(pixel_data)
    if place is None:
        return read_jpeg_outline(single_frame(pixel_data))
    return read_jpeg_outline(pixel_data, place)


def check_frame(dataset: Dataset, layout: PixelLayout) -> JpegStructure | None:
    """Raise `NeedsWorker` if a frame may take long to decode; other errors show while decoding.

    Returns:
        The outline of a JPEG, which `read_frame` then need not read again.
    """
    codec = codec_of(transfer_syntax(dataset.file_meta))
    if codec is _JPEG:
        try:
            outline = _read_outline(_pixel_data(dataset))
        except Exception:
            return None
        check_thread(jpeg_seconds(outline), outline.rows * outline.columns)
        return outline
    pixels = layout.rows * layout.columns
    seconds = stored_seconds(
        pixels * layout.samples * layout.bits_allocated // 8,
        pixels,
        is_packed=codec is _RLE,
        is_color=not layout.is_grey,
    )
    # The file's own length bounds the memory that native pixels need.
    if codec is _NATIVE:
        check_thread_of_native(seconds)
    else:
        check_thread(seconds, pixels)
    return None


def _decode_stream(
    pixel_data: bytes, layout: PixelLayout, codec: Codec, max_pixels: int, reduction: int
) -> Frame:
    if codec is _JPEG_2000:
        stream = single_frame(pixel_data)
        main_header = read_jpeg_2000_outline(stream)
        _check_stated(main_header.rows, main_header.columns, layout, max_pixels)
        is_ybr = layout.is_ybr and not main_header.undoes_ybr
        stored = imagecodecs.jpeg2k_decode(stream)
        # Which of the two is right is unknown: writers leave either flag from another step.
        contradicts = layout.is_grey and (stored.dtype.kind == "i") != layout.is_signed
        return Frame(stored, is_compressed=True, is_ybr=is_ybr, is_repaired=contradicts)
    outline = _read_outline(pixel_data)
    _check_stated(outline.rows, outline.columns, layout, max_pixels)
    if codec is _JPEG_LS:
        stored = imagecodecs.jpegls_decode(single_frame(pixel_data))
        return Frame(stored, is_compressed=True, is_ybr=layout.is_ybr)
    return _decode_jpeg(outline, layout, codec, reduction)


def _decode_jpeg(
    outline: JpegStructure, layout: PixelLayout, codec: Codec, reduction: int
) -> Frame:
    """Decode JPEG by what the stream says of itself; its transfer syntax may say another depth."""
    outline = _with_color_model(outline, layout)
    contradicts = (outline.color == "ycc" and layout.photometric == "RGB") or (
        outline.color == "rgb" and layout.is_ybr
    )
    if outline.frame.bits == 8 and not outline.frame.is_lossless:
        # A grey header over a colour stream leaves one reading: its brightness.
        luma = layout.is_grey and outline.samples > 1
        samples = decode_jpeg(outline, reduction=reduction, luma=luma)
        brightness = samples[..., 1] if samples.ndim == 3 else samples
        return Frame(
            samples,
            is_compressed=True,
            is_ybr=False,
            is_repaired=contradicts or luma,
            is_torn=has_lost_piece(outline)
            or looks_torn(brightness, outline.block_rows // reduction),
        )
    if not codec.in_worker:
        raise CorruptImage("The compressed image is of another kind than its transfer syntax.")
    is_ybr = layout.is_ybr and outline.frame.is_lossless  # the DCT-based decoder gives RGB
    samples = decode_deep_jpeg(outline)
    is_torn = has_lost_piece(outline) or (
        not outline.frame.is_lossless
        and looks_torn(
            samples if samples.ndim == 2 else samples[..., 1],
            outline.block_rows,
            2**outline.frame.bits - 1,
        )
    )
    return Frame(
        samples, is_compressed=True, is_ybr=is_ybr, is_repaired=contradicts, is_torn=is_torn
    )


def _with_color_model(outline: JpegStructure, layout: PixelLayout) -> JpegStructure:
    """Let the header say which colours are meant if the stream does not.

    Only chroma is stored at a lower resolution, so subsampled components are not RGB.
    """
    if outline.color != "unstated":
        return outline
    is_rgb = layout.photometric == "RGB" and not outline.is_subsampled
    return replace(outline, color="rgb" if is_rgb else "ycc")


def _check_stated(rows: int, columns: int, layout: PixelLayout, max_pixels: int) -> None:
    """Compare the size that the codestream states with the header's, before any memory is taken for
    it.
    """
    if rows * columns > max_pixels:
        raise TooLarge(f"The compressed image has more than {max_pixels} pixels.")
    if (rows, columns) != (layout.rows, layout.columns):
        raise CorruptImage("The compressed image's size is not the one that the header states.")
