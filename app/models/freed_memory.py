"""Give memory that was freed back to the operating system, after a graph was opened.

Opening a graph and measuring it takes several times the memory that the open graph keeps. glibc
holds what was freed for later use (malloc_trim(3)): for two models about 70 MB.
"""

import ctypes
from collections.abc import Callable
from contextlib import suppress


def return_freed_memory() -> None:
    """Give back what is free; without glibc do nothing."""
    with suppress(AttributeError):  # another C library has no such function
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
        trim(0)
