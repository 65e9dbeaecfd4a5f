"""Where a value stands in a TOML file, so that a message can name the line."""

import re
from collections import Counter
from collections.abc import Sequence

Path = tuple[str | int, ...]

_TABLE = re.compile(r"\s*(\[\[?)\s*([A-Za-z0-9_.-]+)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"\s*([A-Za-z0-9_-]+)\s*=")


def find_line(text: str, path: Sequence[str | int]) -> int:
    """Return the line, from 1, of a value or else of the table that should hold it.

    Args:
        text: a file that TOML can read.
        path: keys and positions in lists, such as ("rules", 1, "model").
    """
    lines = _list_lines(text)
    wanted = tuple(path)
    while wanted and wanted not in lines:
        wanted = wanted[:-1]
    return lines.get(wanted, 1)


def _list_lines(text: str) -> dict[Path, int]:
    """Map each table and key to the line on which it begins."""
    lines: dict[Path, int] = {}
    counts: Counter[str] = Counter()
    table: Path = ()
    for number, line in enumerate(text.splitlines(), 1):
        header = _TABLE.match(line)
        if header:
            name = header[2]
            table = tuple(name.split("."))
            if header[1] == "[[":
                lines.setdefault(table, number)
                table = (*table, counts[name])
                counts[name] += 1
            lines[table] = number
            continue
        key = _KEY.match(line)
        if key:
            lines.setdefault((*table, key[1]), number)
    return lines
