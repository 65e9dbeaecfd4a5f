"""Give freed memory back to the operating system.

Opening a graph and measuring it takes several times the memory that the open graph keeps. glibc
holds what was freed for later use (malloc_trim(3)): for two models about 70 MB.
"""

import ctypes
from collections.abc import Callable
from contextlib import suppress

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
"""As malloc.h has them."""

_LARGE_BYTES = 4 * 2**20
"""Weights, and the pixels of a large image. A picture of 1024 by 1024 stays on the heap."""


def return_large_blocks_at_once() -> None:
    """Let each large block be a mapping of its own, which goes back as soon as it is freed.

    glibc raises its bound to 32 MB by itself (mallopt(3)). Then weights and images lie on its
    heaps, and one small block above them holds them all. For two models that is 50 MB.
    """
    with suppress(AttributeError):  # another C library has no such function
        set_option: Callable[[int, int], int] = ctypes.CDLL(None).mallopt
        set_option(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        set_option(_M_TRIM_THRESHOLD, _LARGE_BYTES)


def return_freed_memory() -> None:
    """Give back what is free; without glibc do nothing."""
    with suppress(AttributeError):
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
        trim(0)
