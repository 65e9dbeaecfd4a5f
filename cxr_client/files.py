"""Find the files to send, in folders that hold dead links, pipes and locked folders too."""

import os
import stat
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
_PREAMBLE_BYTES = 128


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file or folder that can't be read, and why."""

    path: Path
    reason: str


def find_files(named: Iterable[Path], *, done: Container[str]) -> Iterator[Path | Unreadable]:
    """Yield the files to send, folders sorted and searched at any depth.

    Of a folder, every file is taken that begins like a DICOM, PNG or JPEG file. Only regular files
    are opened: opening a named pipe would wait for its writer.

    Raises:
        FileNotFoundError: nothing has this name.
    """
    for path in named:
        if path.is_dir():
            yield from _in_folder(path, done)
        elif not os.path.lexists(path):
            raise FileNotFoundError(f"there is no {path}")
        elif str(path) not in done:
            yield _fault(path) or path


def _in_folder(folder: Path, done: Container[str]) -> Iterator[Path | Unreadable]:
    locked: list[Unreadable] = []

    def on_error(error: OSError) -> None:
        locked.append(Unreadable(Path(error.filename), _reason(error)))

    for parent, folders, names in os.walk(folder, onerror=on_error):
        folders.sort()
        for path in (Path(parent, name) for name in sorted(names)):
            if str(path) in done:
                continue
            try:
                fault = _fault(path)
                if fault is not None or _begins_like_an_image(path):
                    yield fault or path
            except OSError as error:
                yield Unreadable(path, _reason(error))
    yield from locked


def _fault(path: Path) -> Unreadable | None:
    """Return what keeps a file from being read, as far as its entry tells."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return Unreadable(path, "dangling link" if path.is_symlink() else _reason(error))
    return None if stat.S_ISREG(mode) else Unreadable(path, "no regular file")


def _begins_like_an_image(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(_PREAMBLE_BYTES + 4)
    return head.startswith(_MAGIC) or head[_PREAMBLE_BYTES:] == b"DICM"


def _reason(error: OSError) -> str:
    return (error.strerror or "can't be read").lower()
