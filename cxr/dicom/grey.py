"""From a header to its grey scale: modality LUT or rescaling, then VOI LUT, window, or what the
depth suggests.

The scale is a table over all values that BitsStored allows, so that a
five-megapixel image costs one look-up a pixel.

Shape suffixes: V stored values, as unsigned bit patterns.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from cxr.dicom.header import element, items, text, texts, whole_number
from cxr.dicom.lut import read_lut
from cxr.errors import CorruptImage
from cxr.radiograph import Intensity

Shares = NDArray[np.float64]

DISPLAY_READY_BITS = 8
PERCENTILES = (1.0, 99.0)
_Rule = Callable[[Dataset, NDArray[np.float64]], tuple[Shares, bool] | None]

MAX_STATED = 1e9
"""Slopes, centres and widths beyond this no detector writes."""


@dataclass(frozen=True, slots=True)
class GreyScale:
    """What a header says about grey levels, before polarity.

    `share_V` is the brightness of each bit pattern, about 0 to 1, or None if it takes the
    image's own percentiles of `modality_V`.  `padding_V` are the patterns of pixel padding.
    `is_repaired` tells that something of the header was unusable and left aside.
    """

    intensity: Intensity
    modality_V: NDArray[np.float64]
    share_V: Shares | None
    padding_V: NDArray[np.intp]
    is_repaired: bool

    @property
    def is_direct(self) -> bool:
        """Whether each pattern of eight bits is its own grey level."""
        is_plain = self.intensity == "identity" and not self.padding_V.size
        return is_plain and len(self.modality_V) == 2**DISPLAY_READY_BITS

    def table(self, counts_V: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        """Return the grey level of each bit pattern; `counts_V` says how often each occurs if
        that matters.
        """
        share_V = self.share_V
        if share_V is None:
            assert counts_V is not None
            counts_V[self.padding_V] = 0
            low, high = _percentiles(self.modality_V, counts_V)
            share_V = (self.modality_V - low) / max(high - low, 1e-9)
        return np.rint(np.clip(share_V, 0.0, 1.0) * 255).astype(np.uint8)


_STATED = (
    "ModalityLUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "PixelPaddingValue",
)
"""What a header may say of grey levels; other attributes only say more of these."""


def read_grey_scale(dataset: Dataset, bits: int, *, is_signed: bool) -> GreyScale:
    """Choose how stored values of so many bits become grey; raises `CorruptImage` if a modality
    LUT is broken.
    """
    if all(element(dataset, keyword) is None for keyword in _STATED):
        return _unstated_scale(bits, is_signed=is_signed)
    return _choose_scale(dataset, bits, is_signed=is_signed)


@lru_cache(maxsize=8)
def _unstated_scale(bits: int, *, is_signed: bool) -> GreyScale:
    """Return the grey scale of all headers that state none; nobody may change its arrays."""
    return _choose_scale(Dataset(), bits, is_signed=is_signed)


def _choose_scale(dataset: Dataset, bits: int, *, is_signed: bool) -> GreyScale:
    values_V = _stored_values(bits, is_signed=is_signed)
    modality_V, is_repaired = _modality(dataset, values_V)
    padding_V, padding_fault = _padding(dataset, values_V)
    is_repaired = is_repaired or padding_fault
    for intensity, rule in _RULES:
        try:
            found = rule(dataset, modality_V)
        except (ValueError, CorruptImage):
            is_repaired = True
            continue
        if found is not None:
            return GreyScale(intensity, modality_V, found[0], padding_V, is_repaired or found[1])
    plain = (
        bits <= DISPLAY_READY_BITS and not items(dataset, "ModalityLUTSequence") and not is_signed
    )
    if plain and modality_V[0] < modality_V[-1]:
        return GreyScale("identity", modality_V, values_V / (2**bits - 1), padding_V, is_repaired)
    return GreyScale("percentile", modality_V, None, padding_V, is_repaired)


@lru_cache(maxsize=32)
def _stored_values(bits: int, *, is_signed: bool) -> NDArray[np.int32]:
    """Return the stored value of each bit pattern: int32 [2 ** bits], which nobody may change."""
    values_V = np.arange(2**bits, dtype=np.int32)
    if is_signed:
        values_V = np.where(values_V >= 2 ** (bits - 1), values_V - 2**bits, values_V)
    values_V.flags.writeable = False
    return values_V


def _modality(dataset: Dataset, values_V: NDArray[np.int32]) -> tuple[NDArray[np.float64], bool]:
    """Apply the modality LUT or rescaling (PS3.3 C.11.1); a slope that is no number, or 0, counts
    as absent.
    """
    luts = items(dataset, "ModalityLUTSequence")
    if luts:
        try:
            return read_lut(luts[0]).map(values_V), False
        except ValueError as exc:
            raise CorruptImage("The modality LUT can't be read.") from exc
    try:
        slope, intercept = (
            _number(text(dataset, "RescaleSlope") or "1"),
            _number(text(dataset, "RescaleIntercept") or "0"),
        )
    except ValueError:
        slope = 0.0
    modality_V = np.asarray(values_V, np.float64)
    return (modality_V * slope + intercept, False) if slope else (modality_V, True)


def _through_voi_lut(
    dataset: Dataset, modality_V: NDArray[np.float64]
) -> tuple[Shares, bool] | None:
    """First VOI LUT (PS3.3 C.11.2.1.1)."""
    luts = items(dataset, "VOILUTSequence")
    if not luts:
        return None
    lut = read_lut(luts[0])
    return lut.share(modality_V), lut.is_repaired


def _through_window(
    dataset: Dataset, modality_V: NDArray[np.float64]
) -> tuple[Shares, bool] | None:
    """First usable window: LINEAR, LINEAR_EXACT or SIGMOID (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    if not (text(dataset, "WindowCenter") or text(dataset, "WindowWidth")):
        return None
    function = text(dataset, "VOILUTFunction").upper() or "LINEAR"
    window = next(_windows(dataset, 1.0 if function == "LINEAR" else 1e-3), None)
    if window is None:
        raise ValueError("window")
    center, width = window
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (modality_V - center) / width, -700, 700))), False
    if function == "LINEAR_EXACT":
        return (modality_V - center) / width + 0.5, False
    if width == 1:
        return (modality_V > center - 0.5).astype(np.float64), False
    return (modality_V - (center - 0.5)) / (width - 1) + 0.5, False


_RULES: tuple[tuple[Intensity, _Rule], ...] = (
    ("lut", _through_voi_lut),
    ("window", _through_window),
)
"""A VOI LUT wins over a window if both are stated."""


def _windows(dataset: Dataset, min_width: float) -> Iterator[tuple[float, float]]:
    for center, width in zip(
        texts(dataset, "WindowCenter"), texts(dataset, "WindowWidth"), strict=False
    ):
        try:
            window = _number(center), _number(width)
        except ValueError:
            continue
        if window[1] >= min_width:
            yield window


def _number(value: str) -> float:
    """Read a decimal string; raises `ValueError` if it is none or out of bounds."""
    number = float(value)
    if not abs(number) <= MAX_STATED:  # also false for what is no number at all
        raise ValueError("number")
    return number


def _percentiles(
    modality_V: NDArray[np.float64], counts_V: NDArray[np.int64]
) -> tuple[float, float]:
    """Modality values below which `PERCENTILES` percent of the counted pixels lie."""
    order_V = np.argsort(modality_V, kind="stable")
    cumulative_V = np.cumsum(counts_V[order_V])
    places = np.searchsorted(cumulative_V, [p / 100 * cumulative_V[-1] for p in PERCENTILES])
    low, high = modality_V[order_V[np.minimum(places, len(order_V) - 1)]]
    return float(low), float(high)


def _padding(dataset: Dataset, values_V: NDArray[np.int32]) -> tuple[NDArray[np.intp], bool]:
    """Bit patterns of pixel padding (PS3.3 C.7.5.1.1.2), and whether what the header says of it was
    unusable.
    """
    nothing = np.empty(0, np.intp)
    if element(dataset, "PixelPaddingValue") is None:
        return nothing, False
    try:
        first = _as_stored(whole_number(dataset, "PixelPaddingValue"), values_V)
        last = _as_stored(whole_number(dataset, "PixelPaddingRangeLimit", default=first), values_V)
    except CorruptImage:
        return nothing, True
    return np.flatnonzero((values_V >= min(first, last)) & (values_V <= max(first, last))), False


def _as_stored(value: int, values_V: NDArray[np.int32]) -> int:
    """Return 16 bits with the sign that the pixels have: writers mix US and SS up."""
    if values_V.min() < 0 and value >= 32768:
        return value - 65536
    return value + 65536 if values_V.min() == 0 and value < 0 else value
