"""Files in the folder of answers: there whole or not at all, and checked if they are read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from bulk.errors import SpoiltPart, using_out


@contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """Write a file beside its place; put it there at once if the block ends well.

    The content is on the disk by then. Raises `BulkError` if the folder can't be used.
    """
    draft = path.with_name(f".{path.name}.{uuid4().hex}")
    with using_out():
        try:
            with draft.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


def write_table(table: pa.Table, path: Path) -> None:
    """Write a part's rows with checksums; raises `BulkError`."""
    with written_whole(path) as file:
        encode(table, file)


def encode(table: pa.Table, sink: IO[bytes]) -> None:
    """Write rows as Parquet."""
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)


def read_table(path: Path) -> pa.Table:
    """Return a part's rows, their checksums verified.

    Raises:
        SpoiltPart: the file is not there, or not as it was written.
        BulkError: the folder can't be read now, which says nothing of the file.
    """
    with using_out():
        try:
            content = path.read_bytes()
        except FileNotFoundError as exc:
            raise SpoiltPart(path.name) from exc
    try:
        file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        return file.read(use_threads=False)  # a thread of Arrow's can abort a process that ends
    except (pa.ArrowException, OSError) as exc:  # OSError is Arrow's own for damaged content
        raise SpoiltPart(path.name) from exc
