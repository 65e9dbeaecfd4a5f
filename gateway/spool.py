"""Received instances as files: written whole and synced before anybody hears of them.

An instance lies in the spool as a DICOM file whose data set is byte for byte what the sender
sent. Names are random: nothing of the patient is in one, and no sender can choose one.
"""

import hashlib
import os
import secrets
import threading
from collections.abc import Container
from pathlib import Path

from gateway.failpoints import failpoint

_MODE = 0o600
_META_BEGINS = 144
"""Bytes of preamble, prefix and group length, whose value is the last four (PS3.10 7.1)."""


class Spool:
    """A folder of received files."""

    def __init__(self, folder: Path) -> None:
        """Make the folder if there is none."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        self._lock = threading.Lock()
        self._newest = 0
        self._synced = 0

    def create(self, parts: tuple[bytes, ...]) -> str:
        """Write a new file, not yet synced; returns its name. Raises `OSError`."""
        failpoint("receive.before_file")
        name = f"{secrets.token_hex(12)}.dcm"
        descriptor = os.open(self.folder / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _MODE)
        try:
            failpoint("receive.file_created")
            content = memoryview(b"".join(parts))
            middle = len(content) // 2
            _write_all(descriptor, content[:middle])
            failpoint("receive.half_written")
            _write_all(descriptor, content[middle:])
            failpoint("receive.written")
        except OSError:
            self.delete(name)
            raise
        finally:
            os.close(descriptor)
        with self._lock:
            self._newest += 1
        return name

    def sync_file(self, name: str) -> None:
        """Wait until a file's content is on the disk; raises `OSError`."""
        descriptor = os.open(self.folder / name, os.O_RDONLY)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        failpoint("receive.file_synced")

    def sync_folder(self) -> None:
        """Wait until every name given so far is on the disk; raises `OSError`.

        Callers in a row share one fsync: it is skipped if no file was made since the last one.
        """
        with self._lock:
            newest = self._newest
            if newest == self._synced:
                return
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        failpoint("receive.folder_synced")
        with self._lock:
            self._synced = max(self._synced, newest)

    def read(self, name: str) -> bytes:
        """Return a file's content; raises `OSError`."""
        return (self.folder / name).read_bytes()

    def delete(self, name: str) -> None:
        """Remove a file if it is there."""
        (self.folder / name).unlink(missing_ok=True)

    def delete_unknown(self, known: Container[str]) -> int:
        """Remove files that no row names: nobody was told of them. Returns how many."""
        unknown = [path for path in self.folder.iterdir() if path.name not in known]
        for path in unknown:
            path.unlink()
        return len(unknown)


def digest_of(data_set: bytes) -> str:
    """Return the SHA-256 of an encoded data set, in hexadecimal."""
    return hashlib.sha256(data_set).hexdigest()


def digest_of_spooled(data: bytes) -> str:
    """Return the SHA-256 of the data set in a spooled file.

    The data set begins where the File Meta Information of our own ends, by its group length
    (0002,0000): some senders repeat elements of that group at the head of the data set.
    """
    length = int.from_bytes(data[_META_BEGINS - 4 : _META_BEGINS], "little")
    return digest_of(data[_META_BEGINS + length :])


def _write_all(descriptor: int, content: memoryview) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
