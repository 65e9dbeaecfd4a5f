"""Files that an operating system leaves beside the data, and that are no data."""

from collections.abc import Iterator
from pathlib import Path


def is_stub(path: Path) -> bool:
    """Tell whether a file or folder is one of these; macOS writes `._NAME` beside each NAME."""
    return path.name.startswith("._") or path.name == "__MACOSX"


def count_stubs(data_dir: Path) -> int:
    """Return how many `._NAME` files a data folder holds, at any depth."""
    return sum(1 for _ in data_dir.rglob("._*"))


def data_files(data_dir: Path) -> Iterator[Path]:
    """Yield the regular files of a data folder at any depth, sorted, without stubs."""
    for path in sorted(data_dir.rglob("*")):
        inner = path.relative_to(data_dir)
        if path.is_file() and not any(is_stub(Path(part)) for part in inner.parts):
            yield path
