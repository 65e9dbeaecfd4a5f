"""What a process has freed does not stay with it."""

from pathlib import Path

from app.models.freed_memory import return_freed_memory

MB = 2**20
BLOCK = 64 * 1024
"""So small that the C library takes it from its heap, which it does not give back by itself."""


def resident_bytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("Rss:"))


def test_freed_memory_goes_back_to_the_system() -> None:
    blocks = [b"\x01" * BLOCK for _ in range(2000)]
    last = b"\x01" * BLOCK  # lies above them, and keeps the heap from shrinking
    held = resident_bytes()
    blocks.clear()
    return_freed_memory()

    assert held - resident_bytes() > 60 * MB
    assert len(last) == BLOCK
