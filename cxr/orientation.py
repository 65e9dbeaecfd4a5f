"""The eight ways in which an image can lie, and the way back to upright.

They are numbered as EXIF does (EXIF 2.32, tag 0x0112): what row 0 and column 0 of the stored image
show.

Shape suffixes: H rows, W columns.
"""

import struct
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Orientation = Literal[
    "as_stored",
    "mirrored",
    "rotated_180",
    "flipped",
    "transposed",
    "rotated_90",
    "transversed",
    "rotated_270",
]
"""What was done to the stored image: turns are clockwise, in degrees."""

ORIENTATIONS: tuple[Orientation, ...] = (
    "as_stored",
    "mirrored",
    "rotated_180",
    "flipped",
    "transposed",
    "rotated_90",
    "transversed",
    "rotated_270",
)
"""In EXIF's order, 1 to 8."""


MAX_EXIF_TAGS = 512


def read_exif_orientation(exif: bytes) -> Orientation:
    """Return the orientation that an EXIF segment states.

    Only that one number is read: Pillow would copy every tag's value, as often and as large as a
    hostile file says.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return "as_stored"
    (start,) = struct.unpack_from(f"{order}L", tiff, 4)
    for entry in range(start + 2, min(start + 2 + 12 * MAX_EXIF_TAGS, len(tiff) - 11), 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHLH", tiff, entry)
        if tag == 0x0112:
            return ORIENTATIONS[value - 1] if kind == 3 and 1 <= value <= 8 else "as_stored"
    return "as_stored"


def upright(pixels_HW: NDArray[np.uint8], orientation: Orientation) -> NDArray[np.uint8]:
    """Return an image turned or mirrored."""
    number = ORIENTATIONS.index(orientation) + 1
    if number == 1:
        return pixels_HW
    if number >= 5:
        pixels_HW = pixels_HW.T
    is_mirrored = number in (2, 3, 6, 7)
    is_flipped = number in (3, 4, 7, 8)
    return np.ascontiguousarray(pixels_HW[:: -1 if is_flipped else 1, :: -1 if is_mirrored else 1])


def exchanges_sides(orientation: Orientation) -> bool:
    """Tell whether rows become columns."""
    return ORIENTATIONS.index(orientation) >= 4
