"""From the bytes of an upload to a radiograph: sniff the format, enforce the limits, dispatch."""

from dataclasses import dataclass
from typing import Literal

from cxr.radiograph import Format, Radiograph


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What one upload may cost."""

    max_bytes: int = 64 * 2**20
    max_pixels: int = 64_000_000
    max_inflated_bytes: int = 256 * 2**20


def sniff(data: bytes) -> Format:
    """Tell the format by its first bytes, never by a name; raises `UnsupportedFormat`."""
    raise NotImplementedError


def decode(
    data: bytes, *, limits: DecodeLimits, size: int | None = None, scope: Literal["refuse", "warn"] = "refuse"
) -> Radiograph:
    """Decode one upload whole; raises `ImageError`."""
    raise NotImplementedError
