"""What a whole archive will take, judged by a sample; and afterwards how right that was."""

import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from bulk.manifest import Entry
from bulk.part_file import encode, written_whole

SAMPLE_FILES = 200
FILE_NAME = "_estimate.json"


class Estimate(BaseModel):
    """What scoring all files is expected to take."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_files: int
    core_seconds: float
    seconds: float
    """By the clock, on `num_workers` cores, starting Ray included."""
    num_workers: int
    num_bytes: int
    """Of all Parquet files."""

    def describe(self, price: float | None) -> str:
        """Say it in one line; `price` is that of a core-hour."""
        cost = "" if price is None else f", cost {self.core_seconds / 3600 * price:,.2f}"
        return (
            f"{self.num_files:,} files: about {hours(self.seconds)} hours "
            f"on {self.num_workers} cores, {hours(self.core_seconds)} core-hours, "
            f"{self.num_bytes / 2**20:,.1f} MiB{cost}"
        )

    def compare(self, entries: Sequence[Entry]) -> str:
        """Say how far the estimate was from what the parts took, in per cent of the truth."""
        core_seconds = sum(entry.seconds for entry in entries) or self.core_seconds
        num_bytes = sum(entry.num_bytes for entry in entries)
        return (
            f"The estimate was {hours(self.core_seconds)} core-hours "
            f"({self.core_seconds / core_seconds - 1:+.1%}) and {self.num_bytes / 2**20:,.1f} MiB "
            f"({self.num_bytes / num_bytes - 1:+.1%})."
        )

    @classmethod
    def read(cls, folder: Path) -> "Estimate | None":
        """Read the estimate of a folder; None if there is none that can be read."""
        try:
            return cls.model_validate_json((folder / FILE_NAME).read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, folder: Path) -> None:
        """Keep the estimate, so that the run can be compared with it."""
        with written_whole(folder / FILE_NAME) as file:
            file.write(self.model_dump_json().encode())


def predicted_bytes(sample: pa.Table, num_files: int, part_files: int) -> int:
    """Predict the bytes of all Parquet files from a sample's rows.

    A file costs something for itself and something for each row; both are measured.
    """
    empty = _parquet_bytes(sample.slice(0, 0))
    rows = sample.slice(0, part_files)
    for_each_row: float = (_parquet_bytes(rows) - empty) / rows.num_rows
    num_parts = -(-num_files // part_files)
    return round(num_parts * empty + num_files * for_each_row)


def hours(seconds: float) -> str:
    """Write hours so that a short run does not read as nothing."""
    return f"{seconds / 3600:.3g}"


def _parquet_bytes(table: pa.Table) -> int:
    sink = io.BytesIO()
    encode(table, sink)
    return sink.getbuffer().nbytes
