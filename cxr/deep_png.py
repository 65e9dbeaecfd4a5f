"""PNG of 16 bits a sample: decoded at its real depth, and brought to 8 bits.

Shape suffixes: H rows, W columns, S samples a pixel, V stored values.
"""

import struct
import zlib
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr.errors import CorruptImage

DEPTHS_BITS = (8, 10, 12, 14, 16)
"""Depths at which detectors write."""

LUMA = np.array([0.299, 0.587, 0.114])
"""ITU-R BT.601."""

MAX_GREY_DIFFERENCE = 10 / 255
"""Largest difference between the channels of a grey pixel, as a share of the range."""

MAX_CHUNKS = 50_000

_MAGIC = b"\x89PNG\r\n\x1a\n"
_DEPTH_POSITION = 24
_COLOR = 2
_GREY_WITH_ALPHA = 4
_PIXEL_CHUNKS = frozenset({b"IHDR", b"IDAT", b"IEND"})


@dataclass(frozen=True, slots=True)
class DeepImage:
    """Grey levels of a deep picture, and how they were scaled.

    `bits` is the depth that was taken. `is_full_scale` tells that the brightest pixel is the
    brightest of 16 bits, so that nothing was guessed.
    """

    pixels_HW: NDArray[np.uint8]
    bits: int
    is_full_scale: bool
    has_color: bool


def is_deep_png(data: bytes) -> bool:
    """Tell whether a PNG has 16 bits a sample (PNG 1.2, 4.1.1)."""
    return data[_DEPTH_POSITION : _DEPTH_POSITION + 1] == b"\x10"


def decode_deep_png(data: bytes) -> NDArray[np.uint16]:
    """Decode a colour or transparent PNG of 16 bits to its samples: uint16 [H, W, S].

    Pillow keeps one byte of each sample. It reads grey with alpha whole if called four samples of
    8 bits, and colours in two passes, whose second one takes the low bytes for the high ones of
    little-endian samples. libpng would write its warnings to standard error, where they may wait.

    Raises:
        CorruptImage: it can't be decoded whole.
    """
    try:
        header, deflated = _pixel_chunks(data)
        width, height, _, color_type, _, _, is_adam7 = struct.unpack(">LLBBBBB", header)
        read = partial(_read_bytes, (width, height), deflated, is_adam7)
        if color_type == _GREY_WITH_ALPHA:
            return read("RGBA", "RGBA").view(">u2").astype(np.uint16)
        mode = "RGB" if color_type == _COLOR else "RGBA"
        samples_HWS = np.asarray(read(mode, f"{mode};16B"), np.uint16) << np.uint16(8)
        return np.asarray(samples_HWS | read(mode, f"{mode};16L"), np.uint16)
    except (CorruptImage, MemoryError):
        raise
    except Exception as exc:
        raise CorruptImage("The PNG can't be decoded whole.") from exc


def _read_bytes(
    size: tuple[int, int], deflated: bytes, is_adam7: int, mode: str, raw_mode: str
) -> NDArray[np.uint8]:
    return np.asarray(Image.frombytes(mode, size, deflated, "zip", raw_mode, is_adam7))


def scale_depth(stored: NDArray[Any]) -> DeepImage:
    """Scale 16-bit samples to 8 bits from the depth that they really use; transparency is dropped.

    A brightest sample that is the highest of some depth tells that depth. Otherwise the next depth
    at which detectors write is taken.
    """
    samples_HWS = stored[..., None] if stored.ndim == 2 else stored
    samples_HWS = samples_HWS[..., : 1 if samples_HWS.shape[2] < 3 else 3]
    brightest = int(samples_HWS.max())
    needed = max(brightest.bit_length(), DEPTHS_BITS[0])
    is_telling = brightest == 2**needed - 1
    bits = needed if is_telling else next(bits for bits in DEPTHS_BITS if bits >= needed)
    pixels_HW = np.empty(samples_HWS.shape[:2], np.uint8)
    has_color = False
    for row_W, samples_WS in zip(pixels_HW, samples_HWS, strict=True):  # numpy widens each strip
        has_color = has_color or _has_color(samples_WS, 2**bits - 1)
        grey_W = samples_WS @ LUMA if samples_WS.shape[1] == 3 else samples_WS[:, 0]
        row_W[:] = np.rint(grey_W * (255 / (2**bits - 1)))
    return DeepImage(pixels_HW, bits, brightest == 2**16 - 1, has_color)


def _has_color(samples_WS: NDArray[Any], top: int) -> bool:
    spread_W = samples_WS.max(axis=1) - samples_WS.min(axis=1)
    return bool(spread_W.max() > MAX_GREY_DIFFERENCE * top)


def _pixel_chunks(data: bytes) -> tuple[bytes, bytes]:
    """Return the header and the deflated pixels of a PNG; other chunks make no pixel."""
    header = b""
    deflated: list[bytes] = []
    start = len(_MAGIC)
    for _ in range(MAX_CHUNKS):
        length, kind = struct.unpack(">L4s", data[start : start + 8].ljust(8, b"\0"))
        end = start + 12 + length
        if end > len(data):
            break
        if kind in _PIXEL_CHUNKS and data[end - 4 : end] != _checksum(data[start + 4 : end - 4]):
            raise CorruptImage("A part of the PNG is damaged.")
        if kind == b"IHDR":
            header = data[start + 8 : end - 4]
        elif kind == b"IDAT":
            deflated.append(data[start + 8 : end - 4])
        elif kind == b"IEND":
            return header, b"".join(deflated)
        start = end
    raise CorruptImage("The PNG has no end.")


def _checksum(chunk: bytes) -> bytes:
    return struct.pack(">L", zlib.crc32(chunk))
