"""How a training uses its machine; to be settled before torch is loaded."""

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h."""


def settle() -> None:
    """Let idle threads sleep, and freed memory stay with the process."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin on a busy machine slow each other down
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Have glibc give nothing back before the end; other C libraries do as they like.

    It would return every large tensor to the kernel, which has to clear the pages of the next one: on CPUs up
    to half of a training step's time.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if set_option is not None:
        set_option(_M_MMAP_MAX, 0)
        set_option(_M_TRIM_THRESHOLD, -1)
