"""Search for files that take a thread long to decode: `python -m fuzz.slow SECONDS [SEED]`.

Files that are slow for their size are changed at random: their sizes, scans, depths and single
bytes. Those that take longest are kept and changed again. A file that a thread decodes in more than
`MAX_SECONDS` of processor time, each of three times, is a finding, written to .fuzz/. Once says
little: a thread that shares its core's caches with other programs takes up to three times as long.
"""

import hashlib
import struct
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from cxr.decode import DecodeLimits, decode, quiet_libraries
from cxr.errors import ImageError, NeedsWorker
from tests.factories import make_dicom
from tests.worst_files import many_scans_jpeg, noise_jpeg, png

MAX_SECONDS = 0.5
_KEPT = 24
"""Files that are changed further."""

_LIMITS = DecodeLimits()


def thread_seconds(data: bytes) -> float:
    """Return the processor time of decoding in a thread; 0 if a process must decode the file."""
    started = time.thread_time()
    try:
        decode(data, limits=_LIMITS, size=320, can_be_stopped=False)
    except NeedsWorker:
        return 0.0
    except ImageError:
        pass
    return time.thread_time() - started


def make_file(random: np.random.Generator) -> bytes:
    """Return a slow file with sizes near the limit of what a thread decodes."""
    side = int(random.integers(500, 4472))
    makers: list[Callable[[], bytes]] = [
        lambda: many_scans_jpeg(
            side,
            int(random.integers(1, 101)),
            int(random.choice([1, 3])),
            refine=bool(random.integers(2)),
        ),
        lambda: noise_jpeg(min(side, 2500), progressive=bool(random.integers(2))),
        lambda: png(
            side,
            side,
            int(random.choice([8, 16])),
            int(random.choice([0, 2, 4, 6])),
            int(random.integers(5)),
            interlaced=bool(random.integers(2)),
        ),
        lambda: make_dicom(np.zeros((side, side), np.uint16)),
        lambda: make_dicom(np.zeros((side // 2, side // 2, 3), np.uint8)),
    ]
    return makers[int(random.integers(len(makers)))]()


def change(data: bytes, random: np.random.Generator) -> bytes:
    """Return a file with some bytes changed; a PNG's first checksum is made right again."""
    changed = bytearray(data)
    for _ in range(int(random.integers(1, 5))):
        end = min(len(changed), 2000) if random.integers(4) else len(changed)
        changed[int(random.integers(end))] = int(random.integers(256))
    if changed.startswith(b"\x89PNG") and len(changed) > 33:
        changed[29:33] = struct.pack(">L", zlib.crc32(changed[12:29]))
    return bytes(changed)


def search(seconds: float, random: np.random.Generator) -> list[tuple[float, bytes]]:
    """Return the slowest files that were found in so many seconds of processor time."""
    slowest: list[tuple[float, bytes]] = []
    num_tried = 0
    until = time.process_time() + seconds
    while time.process_time() < until:
        if len(slowest) < _KEPT or random.integers(3) == 0:
            data = make_file(random)
        else:
            data = change(slowest[int(random.integers(len(slowest)))][1], random)
        slowest.append((thread_seconds(data), data))
        slowest.sort(key=lambda found: -found[0])
        del slowest[_KEPT:]
        num_tried += 1
    sys.stdout.write(f"{num_tried} files\n")
    return slowest


def main() -> int:
    """Search; return 1 if a file takes a thread too long."""
    quiet_libraries()
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    found = search(float(sys.argv[1]), np.random.default_rng(seed))
    folder = Path(".fuzz")
    num_slow = 0
    for once_s, data in found[:5]:
        seconds = min(once_s, *(thread_seconds(data) for _ in range(2)))
        name = hashlib.sha256(data).hexdigest()[:16]
        sys.stdout.write(f"{seconds:.3f} s, {len(data)} bytes, {data[:4]!r}, {name}\n")
        if seconds > MAX_SECONDS:
            num_slow += 1
            folder.mkdir(exist_ok=True)
            with suppress(OSError):
                (folder / f"slow-{name}").write_bytes(data)
    return int(num_slow > 0)


if __name__ == "__main__":
    sys.exit(main())
