"""How large an image may be, and how far it is averaged on its way to a model's input."""

from cxr.errors import NotARadiograph, TooLarge

MIN_SIDE = 64
"""Pixels; nothing smaller is a radiograph that anyone could read."""

MAX_JPEG_REDUCTION = 8
"""Largest DCT scaling of libjpeg."""


def check_size(rows: int, columns: int, *, max_pixels: int) -> None:
    """Refuse an image by its stated size, before memory is taken for it.

    Raises:
        TooLarge: more pixels than the limit.
        NotARadiograph: too small to be one.
    """
    if rows * columns > max_pixels:
        raise TooLarge(f"The image has more than {max_pixels} pixels.")
    if min(rows, columns) < MIN_SIDE:
        raise NotARadiograph(f"The image has fewer than {MIN_SIDE} pixels on a side.")


def halvings(rows: int, columns: int, size: int) -> int:
    """Return the largest power of two that leaves both sides at or above `size` (at least 1)."""
    factor = 1
    while min(rows, columns) >= 2 * factor * size:
        factor *= 2
    return factor


def jpeg_reduction(rows: int, columns: int, size: int | None) -> int:
    """Return the power of two by which a JPEG may be averaged while decoding it for an input of
    `size`.
    """
    return 1 if size is None else min(halvings(rows, columns, size), MAX_JPEG_REDUCTION)
