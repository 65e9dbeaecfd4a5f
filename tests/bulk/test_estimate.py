from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bulk.estimate import Estimate, predicted_bytes
from bulk.manifest import Entry
from bulk.part_file import write_table
from bulk.rows import Row, make_table

ESTIMATE = Estimate(num_files=1000, core_seconds=7200, seconds=3600, num_workers=2, num_bytes=2**20)


def rows(count: int) -> list[Row]:
    return [
        Row(
            f"/archive/{number:06}.dcm",
            f"{number}",
            sha256=f"{number * 7919:064x}",
            probability=number / 7919,
        )
        for number in range(count)
    ]


def test_the_bytes_of_all_parts_are_predicted_from_a_sample(tmp_path: Path) -> None:
    every = make_table(rows(3000))
    for start in range(0, 3000, 64):
        write_table(every.slice(start, 64), tmp_path / f"part-{start}.parquet")
    written = sum(path.stat().st_size for path in tmp_path.iterdir())

    assert predicted_bytes(every.slice(1000, 200), 3000, 64) == pytest.approx(written, rel=0.1)


def test_an_estimate_says_hours_core_hours_bytes_and_cost() -> None:
    assert (
        ESTIMATE.describe(0.05)
        == "1,000 files: about 1 hours on 2 cores, 2 core-hours, 1.0 MiB, cost 0.10"
    )


def test_an_estimate_is_compared_with_what_the_parts_took() -> None:
    entries = [
        Entry(part="a", rows=500, num_bytes=2**19, seconds=4000),
        Entry(part="b", num_bytes=2**19, seconds=4000),
    ]

    assert (
        ESTIMATE.compare(entries) == "The estimate was 2 core-hours (-10.0%) and 1.0 MiB (+0.0%)."
    )


def test_an_estimate_is_kept_beside_the_answers(tmp_path: Path) -> None:
    assert Estimate.read(tmp_path) is None

    ESTIMATE.write(tmp_path)

    assert Estimate.read(tmp_path) == ESTIMATE


def test_a_table_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(AttributeError):
        write_table(None, tmp_path / "part-x.parquet")
    assert list(tmp_path.iterdir()) == []

    write_table(make_table(rows(3)), tmp_path / "part-x.parquet")

    assert pq.read_table(tmp_path / "part-x.parquet").num_rows == 3
