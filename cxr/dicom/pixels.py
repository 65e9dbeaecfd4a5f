"""From stored values to grey levels: one table over all values, padding black, polarity last.

Shape suffixes: H rows, W columns, S samples, V stored values (as unsigned bit patterns).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from cxr.codestream import JpegStructure
from cxr.dicom.codecs import Frame, codec_of, read_frame
from cxr.dicom.exchanged_size import are_sides_exchanged
from cxr.dicom.grey import GreyScale, read_grey_scale
from cxr.dicom.header import texts, transfer_syntax
from cxr.dicom.layout import PixelLayout
from cxr.dicom.lut import read_lut
from cxr.dicom.shutter import Shutter, read_shutter
from cxr.dicom.stored_bits import Patterns, from_lowest_bit, stored_patterns
from cxr.errors import CorruptImage, ImageError
from cxr.radiograph import Intensity
from cxr.warning_codes import LOOKS_DAMAGED, ImageWarning, WarningCode

Grey = NDArray[np.uint8]

LUMA = np.array([0.299, 0.587, 0.114])
"""ITU-R BT.601, as JPEG uses it."""

MAX_GREY_CHROMA = 6
"""Distance from the middle of 256 levels that JPEG's rounding may leave in a grey image."""

_REPAIRED = ImageWarning(
    WarningCode.HEADER_REPAIRED,
    "The header's description of the pixels has a fault; that part was left aside or corrected.",
)

_SHEARED = ImageWarning(
    WarningCode.LOOKS_SHEARED,
    "The image looks sheared, as if the header had rows and columns exchanged.",
)

_STRIP_PIXELS = 2**16
"""numpy widens what it indexes, counts and multiplies. A strip of this size, widened, lies in the
cache of a core: five megapixels are counted and mapped in half the time that 2 ** 20 takes."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """Grey levels, MONOCHROME2 sense, and how they were obtained."""

    pixels_HW: Grey
    inverted: bool
    intensity: Intensity
    reduction: int = 1
    warnings: tuple[ImageWarning, ...] = ()


def render(
    dataset: Dataset,
    layout: PixelLayout,
    *,
    max_pixels: int,
    reduction: int = 1,
    outline: JpegStructure | None = None,
) -> Rendering:
    """Decode a data set's frame and map it to grey levels, uint8, 0 black to 255 white.

    `reduction` is used if it changes only the rounding: for 8-bit JPEG without a grey scale.
    `outline` is that of a JPEG, if `check_frame` has read it.

    Raises:
        CorruptImage: the pixels can't be decoded, or a table of the header is broken.
        TooLarge: the codestream is larger than `max_pixels`.
    """
    try:
        shutter = read_shutter(dataset, layout.rows, layout.columns)
        if layout.is_grey:
            read = partial(read_frame, dataset, layout, max_pixels=max_pixels, outline=outline)
            return _render_grey(dataset, layout, shutter, read, reduction)
        return _render_color(dataset, layout, shutter, max_pixels)
    except (ImageError, MemoryError):
        raise
    except Exception as exc:  # broken tables make pydicom and numpy raise errors of many kinds
        raise CorruptImage("The header's description of the pixels does not fit them.") from exc


def _render_grey(
    dataset: Dataset,
    layout: PixelLayout,
    shutter: Shutter,
    read: Callable[..., Frame],
    reduction: int,
) -> Rendering:
    scale = read_grey_scale(dataset, layout.bits_stored, is_signed=layout.is_signed)
    scalable = codec_of(transfer_syntax(dataset.file_meta)).name == "jpeg"
    is_plain = scale.intensity == "identity" and not scale.padding_V.size
    if not (scalable and is_plain and shutter.covered_HW is None):
        reduction = 1
    frame = read(reduction=reduction)
    patterns_HW, bits, is_cut = stored_patterns(dataset, frame, layout)
    if bits != layout.bits_stored:
        scale = read_grey_scale(dataset, bits, is_signed=layout.is_signed)
    inverted = layout.photometric == "MONOCHROME1"
    grey_HW = _map_to_grey(scale, patterns_HW, bits, shutter, inverted=inverted)
    has_other_depth = is_cut or bits != layout.bits_stored
    repairs = (scale, layout, frame, shutter)
    warnings = [LOOKS_DAMAGED] if frame.is_torn else []
    warnings += _warnings(
        dataset,
        scale.intensity,
        inverted=inverted,
        repaired=has_other_depth or any(part.is_repaired for part in repairs),
        sheared=not frame.is_compressed and are_sides_exchanged(patterns_HW),
    )
    pixels_HW = shutter.close(grey_HW)
    return Rendering(pixels_HW, inverted, scale.intensity, reduction, tuple(warnings))


def _map_to_grey(
    scale: GreyScale, patterns_HW: Patterns, bits: int, shutter: Shutter, *, inverted: bool
) -> Grey:
    """Return the grey level of each pixel; padding is black whatever the polarity."""
    if scale.is_direct and not inverted and patterns_HW.dtype == np.uint8:
        return patterns_HW.view(np.uint8)
    counts_V = _count(patterns_HW, bits, shutter) if scale.share_V is None else None
    table_V = scale.table(counts_V)
    if inverted:
        table_V = 255 - table_V
    table_V[scale.padding_V] = 0
    return _look_up(table_V, patterns_HW)


def _strips(image: NDArray[Any]) -> Iterator[slice]:
    """Divide an image's rows into strips of about `_STRIP_PIXELS` pixels."""
    height = max(1, _STRIP_PIXELS // image.shape[1])
    for top in range(0, image.shape[0], height):
        yield slice(top, top + height)


def _look_up(table_V: Grey, patterns_HW: Patterns) -> Grey:
    grey_HW = np.empty(patterns_HW.shape, np.uint8)
    for strip in _strips(patterns_HW):
        np.take(table_V, patterns_HW[strip], out=grey_HW[strip], mode="clip")
    return grey_HW


def _count(patterns_HW: Patterns, bits: int, shutter: Shutter) -> NDArray[np.int64]:
    """Count how often each pattern occurs in the image: not in borders, nor under a shutter."""
    if shutter.covered_HW is not None:
        return np.bincount(patterns_HW[~shutter.covered_HW], minlength=2**bits)
    inside_HW = _inside_borders(patterns_HW)
    counts_V = np.zeros(2**bits, np.int64)
    for strip in _strips(inside_HW):
        counts_V += np.bincount(inside_HW[strip].ravel(), minlength=2**bits)
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


def _render_color(
    dataset: Dataset, layout: PixelLayout, shutter: Shutter, max_pixels: int
) -> Rendering:
    """Render a colour photograph or screen shot of a radiograph: its luma."""
    frame = read_frame(dataset, layout, max_pixels=max_pixels)
    pixels_HW, is_repaired = _color_luma(dataset, layout, frame)
    warnings = [
        ImageWarning(WarningCode.COLOR_INPUT, "The file stores colours; their brightness was used.")
    ]
    if frame.is_torn:
        warnings.append(LOOKS_DAMAGED)
    if is_repaired or any(part.is_repaired for part in (layout, frame, shutter)):
        warnings.append(_REPAIRED)
    if not frame.is_compressed and are_sides_exchanged(pixels_HW):
        warnings.append(_SHEARED)
    return Rendering(
        shutter.close(pixels_HW), inverted=False, intensity="identity", warnings=tuple(warnings)
    )


def _color_luma(dataset: Dataset, layout: PixelLayout, frame: Frame) -> tuple[Grey, bool]:
    """Return the brightness of a colour frame, and whether it has other colours than stated."""
    samples = frame.stored
    if samples.ndim == 2 and layout.photometric == "PALETTECOLOR":
        patterns_HW, bits, is_cut = stored_patterns(dataset, frame, layout)
        luma_HW, is_repaired = _palette_luma(dataset, patterns_HW, bits)
        return luma_HW, is_repaired or is_cut
    top = 2 ** min(layout.bits_stored, 8 * samples.itemsize) - 1
    if samples.dtype.kind != "u" or (samples.ndim == 3 and samples.shape[2] != 3):
        raise CorruptImage("The colour image has neither three samples nor a palette.")
    if not frame.is_compressed:
        samples = from_lowest_bit(samples, layout)
    is_cut = int(samples.max()) > top
    samples = samples & samples.dtype.type(top)
    if samples.ndim == 2:  # a grey codestream under a header that states colours
        return _luma(samples[..., None], np.array([1.0]), top), True
    is_neutral = not frame.is_ybr and _has_neutral_chroma(samples, top)
    weights = np.array([1.0, 0.0, 0.0]) if frame.is_ybr or is_neutral else LUMA
    return _luma(samples, weights, top), is_neutral or is_cut


def _has_neutral_chroma(samples_HWS: NDArray[Any], top: int) -> bool:
    """Tell whether samples that are called RGB are a grey image in YCbCr.

    Chroma of a grey image is the middle of the range; brightness varies.
    """
    middle = (top + 1) // 2
    tolerance = max(1, round(MAX_GREY_CHROMA / 256 * top))
    chroma = samples_HWS[..., 1:]
    is_flat = chroma.max() <= middle + tolerance and chroma.min() >= middle - tolerance
    return bool(is_flat and np.ptp(samples_HWS[..., 0]) > 4 * tolerance)


def _palette_luma(dataset: Dataset, patterns_HW: Patterns, bits: int) -> tuple[Grey, bool]:
    """Return the brightness of a palette's colours (PS3.3 C.7.6.3.1.5), and whether the palette's
    depth was corrected.
    """
    values_V = np.arange(2**bits)
    try:
        shares = [
            read_lut(dataset, f"{color}PaletteColorLookupTable")
            for color in ("Red", "Green", "Blue")
        ]
    except ValueError as exc:
        raise CorruptImage("The palette can't be read.") from exc
    # A channel may well be darker than the others, so the brightest one sets the range.
    brightest = max(shares, key=lambda lut: lut.top)
    table_V = sum(weight * lut.map(values_V) for weight, lut in zip(LUMA, shares, strict=True))
    return _look_up(_to_grey(table_V / brightest.top), patterns_HW), brightest.is_repaired


def _luma(samples_HWS: NDArray[Any], weights_S: NDArray[np.float64], top: int) -> Grey:
    grey_HW = np.empty(samples_HWS.shape[:2], np.uint8)
    for strip in _strips(grey_HW):
        grey_HW[strip] = _to_grey(samples_HWS[strip] @ weights_S / top)
    return grey_HW


def _warnings(
    dataset: Dataset, intensity: Intensity, *, inverted: bool, repaired: bool, sheared: bool
) -> Iterator[ImageWarning]:
    if intensity == "percentile":
        yield ImageWarning(
            WarningCode.INTENSITY_GUESSED, "The file states no window; the grey scale was guessed."
        )
    if repaired:
        yield _REPAIRED
    if sheared:
        yield _SHEARED
    if texts(dataset, "PresentationLUTShape")[0] == ("IDENTITY" if inverted else "INVERSE"):
        detail = "The header contradicts itself on which end of the scale is black."
        yield ImageWarning(WarningCode.POLARITY_CONTRADICTION, detail)


def _to_grey(share: NDArray[np.float64]) -> Grey:
    """Round shares of the range, clipped to 0..1, to grey levels."""
    return np.rint(np.clip(share, 0.0, 1.0) * 255).astype(np.uint8)
