"""From stored values to grey levels: one table over all values, padding black, polarity last.

Shape suffixes: H rows, W columns, S samples, V stored values (as unsigned bit patterns).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from cxr.dicom.codecs import Frame, codec_of, read_frame
from cxr.dicom.grey import is_signed, read_grey_scale
from cxr.dicom.header import text, texts, transfer_syntax, whole_number
from cxr.dicom.lut import read_lut
from cxr.errors import CorruptImage, ImageError
from cxr.radiograph import ImageWarning, Intensity, WarningCode

Grey = NDArray[np.uint8]
Patterns = NDArray[np.uint16] | Grey

LUMA = np.array([0.299, 0.587, 0.114])
"""ITU-R BT.601, as JPEG uses it."""

_GREYS = np.arange(256, dtype=np.uint8)

_STRIP_PIXELS = 2**20
"""numpy widens what it indexes and multiplies; strips keep that from being many times the image."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """Grey levels, MONOCHROME2 sense, and how they were obtained."""

    pixels_HW: Grey
    inverted: bool
    intensity: Intensity
    reduction: int = 1
    warnings: tuple[ImageWarning, ...] = ()


def render(dataset: Dataset, *, max_pixels: int, reduction: int = 1) -> Rendering:
    """Decode a data set's frame and map it to grey levels, uint8, 0 black to 255 white.

    `reduction` is used if it changes only the rounding: for 8-bit JPEG without a grey scale.

    Raises:
        CorruptImage: the pixels can't be decoded, or a table of the header is broken.
        TooLarge: the codestream is larger than `max_pixels`.
    """
    try:
        if text(dataset, "PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
            return _render_color(dataset, max_pixels)
        return _render_grey(dataset, max_pixels, reduction)
    except (ImageError, MemoryError):
        raise
    except Exception as exc:  # broken tables make pydicom and numpy raise errors of many kinds
        raise CorruptImage("The header's description of the pixels does not fit them.") from exc


def _render_grey(dataset: Dataset, max_pixels: int, reduction: int) -> Rendering:
    bits = _bits_stored(dataset)
    if whole_number(dataset, "SamplesPerPixel", default=1) != 1:
        raise CorruptImage("The header's description of the pixels contradicts itself.")
    scale = read_grey_scale(dataset, bits)
    scalable = codec_of(transfer_syntax(dataset.file_meta)).name == "pillow"
    if not (scalable and scale.intensity == "identity" and not scale.padding_V.size):
        reduction = 1
    frame = read_frame(dataset, max_pixels=max_pixels, reduction=reduction)
    patterns_HW, true_bits = _patterns(frame, dataset, bits)
    if true_bits != bits:
        scale = read_grey_scale(dataset, true_bits)
    table_V = scale.table(
        _count(_inside_borders(patterns_HW), true_bits) if scale.share_V is None else None
    )
    inverted = text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
    if inverted:
        table_V = 255 - table_V
    table_V[scale.padding_V] = 0
    warnings = _warnings(
        dataset, scale.intensity, inverted=inverted, repaired=scale.is_repaired or true_bits != bits
    )
    return Rendering(
        _look_up(table_V, patterns_HW), inverted, scale.intensity, reduction, tuple(warnings)
    )


def _bits_stored(dataset: Dataset) -> int:
    bits = whole_number(dataset, "BitsStored")
    if not 1 <= bits <= whole_number(dataset, "BitsAllocated"):
        raise CorruptImage("The header's description of the pixels contradicts itself.")
    return bits


def _patterns(frame: Frame, dataset: Dataset, bits: int) -> tuple[Patterns, int]:
    """Stored values as unsigned bit patterns, and of how many bits they are.

    Bits above and below the stored ones are overlays or junk (PS3.5 section 8.1.1).  A
    compressed stream has no room for junk: if it is deeper than the header says, it is right.
    """
    stored_HW = frame.stored
    if stored_HW.ndim != 2:
        raise CorruptImage("The pixel data has other samples than the header states.")
    unsigned_HW = (
        stored_HW.view(f"u{stored_HW.itemsize}") if stored_HW.dtype.kind == "i" else stored_HW
    )
    depth = 8 * unsigned_HW.itemsize
    if bits >= depth:
        return unsigned_HW, bits
    if frame.is_compressed and not is_signed(dataset):
        needed = int(unsigned_HW.max()).bit_length()
        return unsigned_HW, max(bits, needed)
    shift = whole_number(dataset, "HighBit", default=bits - 1) + 1 - bits
    if 0 < shift <= depth - bits:
        unsigned_HW = unsigned_HW >> unsigned_HW.dtype.type(shift)
    return unsigned_HW & unsigned_HW.dtype.type(2**bits - 1), bits


def _strips(image: NDArray[Any]) -> Iterator[slice]:
    """Divide an image's rows into strips of about `_STRIP_PIXELS` pixels."""
    height = max(1, _STRIP_PIXELS // image.shape[1])
    for top in range(0, image.shape[0], height):
        yield slice(top, top + height)


def _look_up(table_V: Grey, patterns_HW: Patterns) -> Grey:
    if patterns_HW.dtype == np.uint8 and np.array_equal(table_V, _GREYS):
        return patterns_HW.view(np.uint8)  # each pattern is its own grey level
    grey_HW = np.empty(patterns_HW.shape, np.uint8)
    for strip in _strips(patterns_HW):
        np.take(table_V, patterns_HW[strip], out=grey_HW[strip], mode="clip")
    return grey_HW


def _count(patterns_HW: Patterns, bits: int) -> NDArray[np.int64]:
    counts_V = np.zeros(2**bits, np.int64)
    for strip in _strips(patterns_HW):
        counts_V += np.bincount(patterns_HW[strip].ravel(), minlength=2**bits)
    return counts_V


def _inside_borders(patterns_HW: Patterns) -> Patterns:
    """Leave out rows and columns of one value at the edges: a collimator's border says nothing of
    the radiograph.
    """
    rows = np.flatnonzero(patterns_HW.min(axis=1) != patterns_HW.max(axis=1))
    columns = np.flatnonzero(patterns_HW.min(axis=0) != patterns_HW.max(axis=0))
    if not rows.size or not columns.size:
        return patterns_HW
    return patterns_HW[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _render_color(dataset: Dataset, max_pixels: int) -> Rendering:
    """Render a colour photograph or screen shot of a radiograph: its luma."""
    frame = read_frame(dataset, max_pixels=max_pixels)
    samples = frame.stored
    if text(dataset, "PhotometricInterpretation") == "PALETTE COLOR" and samples.ndim == 2:
        pixels_HW = _palette_luma(dataset, *_patterns(frame, dataset, _bits_stored(dataset)))
    elif samples.ndim == 3 and samples.shape[2] == 3 and samples.dtype.kind == "u":
        top = 2 ** min(_bits_stored(dataset), 8 * samples.itemsize) - 1
        pixels_HW = _luma(
            samples & samples.dtype.type(top),
            np.array([1.0, 0.0, 0.0]) if frame.is_ybr else LUMA,
            top,
        )
    else:
        raise CorruptImage("The colour image has neither three samples nor a palette.")
    warning = ImageWarning(
        WarningCode.COLOR_INPUT, "The file stores colours; their brightness was used."
    )
    return Rendering(pixels_HW, inverted=False, intensity="identity", warnings=(warning,))


def _palette_luma(dataset: Dataset, patterns_HW: Patterns, bits: int) -> Grey:
    """Brightness of a palette's colours (PS3.3 C.7.6.3.1.5)."""
    values_V = np.arange(2**bits)
    try:
        shares = [
            read_lut(dataset, f"{color}PaletteColorLookupTable")
            for color in ("Red", "Green", "Blue")
        ]
    except ValueError as exc:
        raise CorruptImage("The palette can't be read.") from exc
    tops = max(
        2**lut.bits - 1 for lut in shares
    )  # a channel may well be darker than its depth allows
    table_V = (
        sum(weight * lut.map(values_V) for weight, lut in zip(LUMA, shares, strict=True)) / tops
    )
    return _look_up(_to_grey(table_V), patterns_HW)


def _luma(samples_HWS: NDArray[Any], weights_S: NDArray[np.float64], top: int) -> Grey:
    grey_HW = np.empty(samples_HWS.shape[:2], np.uint8)
    for strip in _strips(grey_HW):
        grey_HW[strip] = _to_grey(samples_HWS[strip] @ weights_S / top)
    return grey_HW


def _warnings(
    dataset: Dataset, intensity: Intensity, *, inverted: bool, repaired: bool
) -> Iterator[ImageWarning]:
    if intensity == "percentile":
        yield ImageWarning(
            WarningCode.INTENSITY_GUESSED, "The file states no window; the grey scale was guessed."
        )
    if repaired:
        yield ImageWarning(
            WarningCode.HEADER_REPAIRED,
            "The header's grey scale has a fault; that part was left aside.",
        )
    if texts(dataset, "PresentationLUTShape")[0] == ("IDENTITY" if inverted else "INVERSE"):
        detail = "The header contradicts itself on which end of the scale is black."
        yield ImageWarning(WarningCode.POLARITY_CONTRADICTION, detail)


def _to_grey(share: NDArray[np.float64]) -> Grey:
    """Round shares of the range, clipped to 0..1, to grey levels."""
    return np.rint(np.clip(share, 0.0, 1.0) * 255).astype(np.uint8)
