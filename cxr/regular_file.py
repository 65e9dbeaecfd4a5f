"""Read a file that somebody else has written: no link, no pipe, no more bytes than a limit."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)  # a pipe without a writer would be waited for
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)


def read_regular_file(path: Path, *, max_bytes: int) -> bytes:
    """Return the content of a file.

    Raises:
        OSError: the file can't be read, is a link, is no regular file or is larger than the limit.
    """
    with open_regular_file(path) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise OSError(f"{path.name} has more than {max_bytes} bytes")
    return data


def open_regular_file(path: Path, *, follow_links: bool = False) -> BinaryIO:
    """Open a file for reading; whoever asks closes it.

    Raises:
        OSError: the file can't be read, is no regular file, or is a link that is not followed.
    """
    flags = _FLAGS if follow_links else _FLAGS | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path.name} is no regular file")
    return open(descriptor, "rb")  # noqa: PTH123 -- Path.open takes no descriptor
