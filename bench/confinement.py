"""Keep a server inside control groups: less memory than it would like, or a slow disk.

Only root may do so, and only version 1 of control groups is known here. Elsewhere these
disturbances are left out.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bench.processes import MEBIBYTE
from bench.servers import Server

_ROOT = Path("/sys/fs/cgroup")
_REMOVAL_S = 5.0

SLOW_DISK_BYTES_PER_S = MEBIBYTE
_THROTTLES = ("read_bps_device", "write_bps_device")


@dataclass(frozen=True)
class ControlGroup:
    """One folder of a controller."""

    folder: Path

    def set(self, name: str, text: str) -> None:
        """Write one of its files."""
        (self.folder / name).write_text(text)

    def read(self, name: str) -> str:
        """Read one of its files."""
        return (self.folder / name).read_text()


@contextmanager
def control_group(controller: str) -> Iterator[ControlGroup | None]:
    """Yield a new group of a controller, or None if this process may make none."""
    folder = _ROOT / controller / f"bench-{os.getpid()}"
    try:
        folder.mkdir()
        has_all = (folder / "cgroup.procs").exists()
    except OSError:
        has_all = False
    try:
        yield ControlGroup(folder) if has_all else None
    finally:
        if has_all:
            _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a group as soon as its last process is gone."""
    deadline = time.monotonic() + _REMOVAL_S
    while folder.exists() and time.monotonic() < deadline:
        with suppress(OSError):
            folder.rmdir()
        time.sleep(0.05)


def inside(server: Server, group: ControlGroup) -> Server:
    """Return a server that starts as a member of a group."""
    join = f'echo $$ > {group.folder}/cgroup.procs && exec "$@"'
    return replace(server, command=("sh", "-c", join, "sh", *server.command))


@contextmanager
def slow_disk(group: ControlGroup, files: Path) -> Iterator[None]:
    """Let the members of a group read and write a megabyte a second, on the disk of some files.

    What those files have in the page cache is dropped first.
    """
    number = files.stat().st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    for file in files.rglob("*"):
        if file.is_file():
            _drop_cached(file)
    for name in _THROTTLES:
        group.set(f"blkio.throttle.{name}", f"{device} {SLOW_DISK_BYTES_PER_S}")
    try:
        yield
    finally:
        for name in _THROTTLES:
            group.set(f"blkio.throttle.{name}", f"{device} 0")


def _drop_cached(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
