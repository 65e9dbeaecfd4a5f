"""Read the answers of a run: the parts that count, and nothing else that lies beside them."""

from pathlib import Path

import pyarrow.dataset as ds

from bulk.errors import BulkError
from bulk.manifest import MANIFEST, parse_entries, read_manifest
from bulk.rows import SCHEMA


def read_results(folder: Path | str) -> ds.Dataset:
    """Return the rows of a run, one for each file; `.to_table()` or `.to_batches()` reads them.

    Args:
        folder: `OUT/model=<name>/version=<number>`, or OUT if it holds the answers of one model
            version. A run may be going on there.

    Raises:
        BulkError: there is no run, there are several, or one of its files is damaged.
    """
    found = [path.parent for path in Path(folder).rglob(MANIFEST)]
    if len(found) != 1:
        names = ", ".join(sorted(map(str, found))) or "none"
        raise BulkError(f"name the folder of one model version; here are: {names}")
    entries, is_whole = parse_entries(read_manifest(found[0]))
    paths = {found[0] / entry.file_name: entry.num_bytes for entry in entries.values()}
    if not is_whole or any(_size(path) != size for path, size in paths.items()):
        raise BulkError("some parts are damaged; the command that made them makes them again")
    return ds.dataset(list(map(str, paths)), schema=SCHEMA, format="parquet")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1
