"""The cores that this process may use, and what they can do that matters to a training."""

import os
from pathlib import Path


def available_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def bf16_instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """Name this processor's own bf16 instructions as the Linux kernel does; None if it has none,
    or can't be asked.
    """
    if not cpuinfo.is_file():
        return None
    flags = set(cpuinfo.read_text(encoding="ascii", errors="replace").split())
    return " ".join(name for name in ("avx512_bf16", "amx_bf16") if name in flags) or None
