"""From stored values to grey levels: modality LUT, VOI LUT or window, padding, polarity.

Everything that maps one stored value to one grey level is folded into a table
over all values that BitsStored allows, so that a five-megapixel image costs one
look-up a pixel.

Shape suffixes: H rows, W columns, V stored values (as unsigned bit patterns).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi, convert_color_space
from pydicom.pixels.utils import pixel_array

from cxr.dicom.codecs import Stored, codec_of, read_stored
from cxr.dicom.header import text, texts, transfer_syntax
from cxr.dicom.scope import whole_number
from cxr.errors import CorruptImage, ImageError
from cxr.radiograph import Caution, Intensity, WarningCode

Grey = NDArray[np.uint8]

DISPLAY_READY_BITS = 8
PERCENTILES = (1.0, 99.0)
LUMA = np.array([0.299, 0.587, 0.114])
"""ITU-R BT.601, as JPEG uses it."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """Grey levels, MONOCHROME2 sense, and how they were made."""

    pixels_HW: Grey
    inverted: bool
    intensity: Intensity
    reduction: int = 1
    cautions: tuple[Caution, ...] = ()


def render(dataset: Dataset, *, max_pixels: int, reduction: int = 1) -> Rendering:
    """Decode a data set's frame and map it to grey levels, uint8, 0 black to 255 white.

    `reduction` is used where it changes nothing but the rounding: on 8-bit JPEG shown as it is.

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
    bits = whole_number(dataset, "BitsStored")
    if not 1 <= bits <= whole_number(dataset, "BitsAllocated") or whole_number(dataset, "SamplesPerPixel", default=1) != 1:
        raise CorruptImage("The header's description of the pixels contradicts itself.")
    intensity = _intensity(dataset, bits)
    if not (intensity == "identity" and codec_of(transfer_syntax(dataset.file_meta)).name == "pillow"):
        reduction = 1
    stored_HW = _patterns(read_stored(dataset, max_pixels=max_pixels, reduction=reduction), bits)
    table_V = _grey_table(dataset, intensity, stored_HW, bits)
    inverted = text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
    if inverted:
        table_V = 255 - table_V
    table_V[_padding(dataset, bits)] = 0
    return Rendering(
        np.take(table_V, stored_HW), inverted, intensity, reduction, _cautions(dataset, intensity, inverted=inverted)
    )


def _intensity(dataset: Dataset, bits: int) -> Intensity:
    """Choose how stored values become grey: a VOI LUT, else a window, else what the depth suggests."""
    if dataset.get("VOILUTSequence"):
        return "lut"
    if _window(dataset) is not None:
        return "window"
    plain = bits <= DISPLAY_READY_BITS and "ModalityLUTSequence" not in dataset and not _signed(dataset)
    return "identity" if plain else "percentile"


def _patterns(stored_HW: Stored, bits: int) -> NDArray[np.uint16] | Grey:
    """Stored values as unsigned bit patterns of BitsStored bits, whatever lay in the bits above (PS3.5 section 8.1.1)."""
    if stored_HW.ndim != 2:
        raise CorruptImage("The pixel data has other samples than the header states.")
    unsigned_HW = stored_HW.view(f"u{stored_HW.itemsize}") if stored_HW.dtype.kind == "i" else stored_HW
    mask = unsigned_HW.dtype.type(min(2**bits - 1, np.iinfo(unsigned_HW.dtype).max))
    return unsigned_HW & mask if bits < 8 * unsigned_HW.itemsize else unsigned_HW


def _values(dataset: Dataset, bits: int) -> NDArray[np.int32]:
    """The stored value of each bit pattern: int32 [2 ** bits]."""
    values_V = np.arange(2**bits, dtype=np.int32)
    return np.where(values_V >= 2 ** (bits - 1), values_V - 2**bits, values_V) if _signed(dataset) else values_V


def _grey_table(dataset: Dataset, intensity: Intensity, stored_HW: Stored, bits: int) -> Grey:
    """Grey level of each bit pattern, before polarity: uint8 [2 ** bits]."""
    values_V = _values(dataset, bits)
    if intensity == "identity":
        return _to_grey(values_V / (2**bits - 1))
    modality_V = np.asarray(apply_modality_lut(values_V, dataset), np.float64)
    if intensity == "lut":
        return _to_grey(_through_voi_lut(modality_V, dataset))
    window = _window(dataset)
    if intensity == "window" and window is not None:
        return _to_grey(_through_window(modality_V, *window, text(dataset, "VOILUTFunction") or "LINEAR"))
    counts_V = np.bincount(stored_HW.ravel(), minlength=2**bits)
    counts_V[_padding(dataset, bits)] = 0
    low, high = _percentiles(modality_V, counts_V)
    return _to_grey((modality_V - low) / max(high - low, 1e-9))


def _through_voi_lut(modality_V: NDArray[np.float64], dataset: Dataset) -> NDArray[np.float64]:
    """First VOI LUT (PS3.3 C.11.2.1.1) as a share of its output range."""
    descriptor_bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
    mapped_V = np.asarray(apply_voi(np.rint(modality_V).astype(np.int32), dataset, index=0), np.float64)
    return np.asarray(mapped_V / (2**descriptor_bits - 1))


def _through_window(modality_V: NDArray[np.float64], center: float, width: float, function: str) -> NDArray[np.float64]:
    """Window as a share of its output range: LINEAR, LINEAR_EXACT or SIGMOID (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (modality_V - center) / width, -700, 700)))
    if function == "LINEAR_EXACT" or width <= 1:
        return (modality_V - center) / width + 0.5
    return np.asarray((modality_V - (center - 0.5)) / (width - 1) + 0.5)


def _window(dataset: Dataset) -> tuple[float, float] | None:
    """The first window's center and width; None where it is absent, unreadable or not wider than 0."""
    try:
        center, width = float(text(dataset, "WindowCenter")), float(text(dataset, "WindowWidth"))
    except ValueError:
        return None
    exact = text(dataset, "VOILUTFunction") in ("LINEAR_EXACT", "SIGMOID")
    return (center, width) if np.isfinite([center, width]).all() and (width >= 1 or (exact and width > 0)) else None


def _percentiles(modality_V: NDArray[np.float64], counts_V: NDArray[np.int64]) -> tuple[float, float]:
    """Modality values below which `PERCENTILES` percent of the counted pixels lie."""
    order_V = np.argsort(modality_V, kind="stable")
    cumulative_V = np.cumsum(counts_V[order_V])
    places = np.searchsorted(cumulative_V, [p / 100 * cumulative_V[-1] for p in PERCENTILES])
    low, high = modality_V[order_V[np.minimum(places, len(order_V) - 1)]]
    return float(low), float(high)


def _padding(dataset: Dataset, bits: int) -> slice | NDArray[np.intp]:
    """Bit patterns of pixel padding (PS3.3 C.7.5.1.1.2), to be left out of statistics and painted black."""
    try:
        first = int(_raw_number(dataset, "PixelPaddingValue"))
        last = int(_raw_number(dataset, "PixelPaddingRangeLimit", default=first))
    except ValueError:
        return slice(0)
    values_V = _values(dataset, bits)
    return np.flatnonzero((values_V >= min(first, last)) & (values_V <= max(first, last)))


def _raw_number(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    value: Any = dataset.get(keyword, default)
    if value is None or value == "":
        raise ValueError(keyword)
    return int(value)


def _render_color(dataset: Dataset, max_pixels: int) -> Rendering:
    """Render a colour photograph or screen shot of a film: its luma."""
    photometric = text(dataset, "PhotometricInterpretation")
    name = codec_of(transfer_syntax(dataset.file_meta)).name
    if photometric == "PALETTE COLOR":
        color_HW3 = _to_8_bits(np.asarray(apply_color_lut(read_stored(dataset, max_pixels=max_pixels), dataset)))
    elif name == "native":
        color_HW3 = pixel_array(dataset, index=0)
    else:
        color_HW3 = read_stored(dataset, max_pixels=max_pixels)
        # JPEG decoders undo their own colour transform; the others leave YBR as stored.
        if photometric == "YBR_FULL" and name in ("rle", "jpeg-ls"):
            color_HW3 = convert_color_space(color_HW3, photometric, "RGB")
    if color_HW3.ndim != 3 or color_HW3.shape[2] != 3 or color_HW3.dtype != np.uint8:
        raise CorruptImage("The colour image has neither three samples nor 8 bits.")
    caution = Caution(WarningCode.COLOR_INPUT, "The file stores colours; their brightness was used.")
    return Rendering(_to_grey(color_HW3 @ LUMA / 255), inverted=False, intensity="identity", cautions=(caution,))


def _to_8_bits(color_HW3: NDArray[Any]) -> Grey:
    return (color_HW3 >> 8).astype(np.uint8) if color_HW3.dtype == np.uint16 else color_HW3.astype(np.uint8)


def _cautions(dataset: Dataset, intensity: Intensity, *, inverted: bool) -> tuple[Caution, ...]:
    found = []
    if intensity == "percentile":
        found.append(Caution(WarningCode.INTENSITY_GUESSED, "The file states no window; the grey scale was guessed."))
    shape = texts(dataset, "PresentationLUTShape")[0]
    if shape == ("IDENTITY" if inverted else "INVERSE"):
        found.append(
            Caution(WarningCode.POLARITY_CONTRADICTION, "The header contradicts itself on which end of the scale is black.")
        )
    return tuple(found)


def _signed(dataset: Dataset) -> bool:
    return whole_number(dataset, "PixelRepresentation", default=0) == 1


def _to_grey(share: NDArray[np.float64]) -> Grey:
    """Round shares of the range, clipped to 0..1, to grey levels."""
    return np.rint(np.clip(share, 0.0, 1.0) * 255).astype(np.uint8)
