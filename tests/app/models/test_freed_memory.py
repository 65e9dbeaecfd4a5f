"""What a process has freed does not stay with it."""

import subprocess
import sys
from pathlib import Path

from app.models.freed_memory import return_freed_memory
from tests.server import ROOT

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


LARGE_BLOCKS = """
from app.models.freed_memory import return_large_blocks_at_once
from tests.app.models.test_freed_memory import MB, resident_bytes

return_large_blocks_at_once()
largest = b"\\x01" * (24 * MB)
del largest  # from here on glibc would keep blocks up to this size
blocks = [b"\\x01" * (8 * MB) for _ in range(10)]
last = [b"\\x01" * 1024 for _ in range(1000)]  # some lie above the blocks
held = resident_bytes()
blocks.clear()
print((held - resident_bytes()) // MB)
"""
"""In a process of its own: a large heap may have room for the blocks."""


def test_a_large_block_goes_back_as_soon_as_it_is_freed() -> None:
    command = [sys.executable, "-c", LARGE_BLOCKS]
    freed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert int(freed.stdout) > 70
