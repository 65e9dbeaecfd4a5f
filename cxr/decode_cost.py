"""How long a file may take to decode, estimated from its headers before any pixel is decoded.

A small file can take a decoder long: a progressive JPEG may walk over the whole image a hundred
times. Such files are decoded by a process that can be stopped. The constants are what the worst
files of each kind took on one core of a 2024 server, rounded up; docs/security.md has the table.
"""

from cxr.codestream import JpegStructure
from cxr.errors import NeedsWorker

MAX_THREAD_SECONDS = 0.06
"""Longer work is left to a process that can be stopped, and that stands back behind ordinary files.
A JPEG of 9 megapixels from a detector takes less."""

MAX_NATIVE_THREAD_SECONDS = 0.3
"""The same for uncompressed pixels: they can't be slow for their size, detectors write them, and
another process would have to be sent all of them."""

MAX_THREAD_PIXELS = 20_000_000
"""Larger images are decoded where memory is bounded; detectors make up to 19 megapixels."""

_PIXEL_S = 3e-9
"""Averaging and mapping, for each pixel."""

_COLOR_PIXEL_S = 6e-9
"""Looking for colour and taking the brightness, for each pixel."""

_PNG_BYTE_S = 5e-9
"""Undoing the filter, for each inflated byte; Adam7 takes half as long again."""

_DEFLATED_BYTE_S = 12e-9
"""Inflating, for each byte of the file."""

_SCAN_SAMPLE_S = 1.5e-9
"""A walk of a JPEG decoder over one sample of one scan."""

_SEQUENTIAL_BYTE_S = 8e-9
_PROGRESSIVE_BYTE_S = 20e-9
"""Entropy decoding; a refinement reads single bits."""

_ARITHMETIC = 10
"""Times that arithmetic decoding takes longer for each byte."""

_NATIVE_BYTE_S = 4e-9
_RLE_BYTE_S = 9e-9
_COLOR_BYTE_S = 9e-9
"""Mapping stored values to grey, for each stored byte; RLE and colour take longer."""


def check_thread(seconds: float, pixels: int) -> None:
    """Raise `NeedsWorker` for a compressed image that a thread should not decode."""
    if seconds > MAX_THREAD_SECONDS or pixels > MAX_THREAD_PIXELS:
        raise NeedsWorker(seconds)


def check_thread_of_native(seconds: float) -> None:
    """Raise `NeedsWorker` for uncompressed pixels that a thread should not read."""
    if seconds > MAX_NATIVE_THREAD_SECONDS:
        raise NeedsWorker(seconds)


def jpeg_seconds(outline: JpegStructure) -> float:
    """Return how long a JPEG may take: its samples in each scan, its bytes, its pixels."""
    frame = outline.frame
    byte_s = _PROGRESSIVE_BYTE_S if frame.is_progressive else _SEQUENTIAL_BYTE_S
    if frame.is_arithmetic:
        byte_s *= _ARITHMETIC
    pixel_s = _PIXEL_S if len(frame.components) == 1 else _PIXEL_S + _COLOR_PIXEL_S
    pixels = frame.rows * frame.columns
    return outline.num_scanned * _SCAN_SAMPLE_S + outline.num_bytes * byte_s + pixels * pixel_s


def png_seconds(num_bytes: int, pixels: int, bits: int, *, is_color: bool, is_adam7: bool) -> float:
    """Return how long a PNG may take.

    Args:
        num_bytes: length of the file.
        pixels: rows times columns.
        bits: bits of a pixel.
        is_color: whether it has several channels or a palette.
        is_adam7: whether it is interlaced.
    """
    byte_s = _PNG_BYTE_S * (1.5 if is_adam7 else 1.0)
    pixel_s = _PIXEL_S + _COLOR_PIXEL_S if is_color else _PIXEL_S
    return pixels * bits / 8 * byte_s + num_bytes * _DEFLATED_BYTE_S + pixels * pixel_s


def stored_seconds(num_bytes: int, pixels: int, *, is_packed: bool, is_color: bool) -> float:
    """Return how long uncompressed or run-length coded (`is_packed`) pixels of DICOM may take.

    Args:
        num_bytes: size of the pixels after decompression.
        pixels: rows times columns.
        is_packed: whether the pixels are run-length coded.
        is_color: whether there are several samples, or a palette.
    """
    byte_s = _RLE_BYTE_S if is_packed else _NATIVE_BYTE_S
    return num_bytes * max(byte_s, _COLOR_BYTE_S if is_color else 0.0) + pixels * _PIXEL_S
