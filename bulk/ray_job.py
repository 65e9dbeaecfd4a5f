"""Parts spread over the cores of one machine or of a cluster, by Ray Data.

This is the only module that imports Ray.

A part is a task of one core. Ray gives a task whose worker or node has died to another one, as
often as that happens; `score_to_parquet.Journal` sees to it that no file ends every worker.
Tasks and not actors do the work: the actor of a dead node waits for a free core that may never
come, and with it wait the parts that it had taken. A worker process still keeps its graph open.
"""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody

import pyarrow as pa
import ray
import ray.data
from ray.exceptions import RayError

from bulk.archive_parts import ArchivePart, Item
from bulk.errors import BulkError
from bulk.manifest import Entry
from bulk.score_to_parquet import score_part, score_sample
from bulk.scoring_job import Job
from cxr.errors import CxrError

_OBJECT_STORE_BYTES = 256 * 2**20
"""Of a Ray of our own: only names and results travel through it, never an image."""


@dataclass(frozen=True, slots=True)
class SampleResult:
    """What a sample's part gave."""

    table: pa.Table
    seconds: float


@contextmanager
def connected(address: str | None, num_workers: int | None) -> Iterator[int]:
    """Connect to a cluster, or start Ray on this machine; yield the number of cores to use."""
    if address is None:
        ray.init(
            address="local",  # else Ray joins whatever cluster it finds on this machine
            num_cpus=num_workers,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    else:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield num_workers or _count_cores()
    finally:
        ray.shutdown()


def _count_cores() -> int:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(resources["CPU"])


def run_parts(job: Job, parts: Sequence[ArchivePart], num_workers: int) -> Iterator[Entry]:
    """Score parts and write their files; yield each as it is done, in any order."""
    for row in _map(_score_part, job, parts, num_workers):
        yield Entry.model_validate_json(row["entry"])


def run_sample(job: Job, parts: Sequence[ArchivePart], num_workers: int) -> Iterator[SampleResult]:
    """Score parts without writing them."""
    for row in _map(_score_sample, job, parts, num_workers):
        with pa.ipc.open_stream(row["table"]) as stream:
            yield SampleResult(stream.read_all(), row["seconds"])


def _map(
    step: Any, job: Job, parts: Sequence[ArchivePart], num_workers: int
) -> Iterator[dict[str, Any]]:
    """Yield what a step makes of each part; raises `BulkError`."""
    rows = [{"part": json.dumps(asdict(part))} for part in parts]
    run_step: Any = _run_step  # Ray's annotation knows no `fn_args`
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        run_step, fn_args=(step, job), num_cpus=1, concurrency=num_workers
    )
    try:
        for row in dataset.iter_rows():
            if "error" in row:
                raise BulkError(f"a worker stopped: {row['error']}")
            yield row
    except RayError as exc:
        kind = type(exc.__cause__ or exc).__name__
        raise BulkError(f"Ray stopped ({kind}); the same command goes on from here") from exc


def _run_step(row: dict[str, Any], step: Any, job: Job) -> dict[str, Any]:
    """Run a step in a worker. Our own errors travel as text: Ray would wrap them."""
    part = json.loads(row["part"])
    part["items"] = tuple(Item(**item) for item in part["items"])
    try:
        return dict(step(job, ArchivePart(**part)))
    except (BulkError, CxrError) as exc:
        return {"error": str(exc)}


def _score_part(job: Job, part: ArchivePart) -> dict[str, Any]:
    return {"entry": score_part(job, part).model_dump_json()}


def _score_sample(job: Job, part: ArchivePart) -> dict[str, Any]:
    table, seconds = score_sample(job, part)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return {"table": sink.getvalue().to_pybytes(), "seconds": seconds}
