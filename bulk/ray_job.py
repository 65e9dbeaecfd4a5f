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
import socket
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

_STARTS = 3
"""Ray gives its own start 30 seconds, which a busy machine may exceed."""

_KNOCK_S = 10.0

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
    _start(address, num_workers)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield num_workers or _count_cores()
    finally:
        ray.shutdown()


def _start(address: str | None, num_workers: int | None) -> None:
    """Start a Ray of our own, or connect to a cluster; raises `BulkError`."""
    for num_left in reversed(range(_STARTS if address is None else 1)):
        try:
            if address is None:
                _start_here(num_workers)
            else:
                _knock(address)
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as exc:  # Ray raises bare ones
            ray.shutdown()
            if not num_left:
                reason = str(exc).partition("\n")[0]
                raise BulkError(f"Ray can't be started or reached: {reason}") from exc
        else:
            return


def _start_here(num_workers: int | None) -> None:
    ray.init(
        address="local",  # else Ray joins whatever cluster it finds on this machine
        num_cpus=num_workers,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def _knock(address: str) -> None:
    """Raise `OSError` if nothing listens at HOST:PORT; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()


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
