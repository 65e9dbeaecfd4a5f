"""The driver: list, subtract what is done, score the rest, commit each part as it comes."""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa
from tqdm import tqdm

from bulk.archive_parts import ArchivePart, Item, divide, mix, sample
from bulk.errors import BulkError
from bulk.estimate import SAMPLE_FILES, Estimate, predicted_bytes
from bulk.manifest import ArchiveManifest, JobFile, hold
from bulk.scoring_job import Job
from bulk.sources import Listing

if TYPE_CHECKING:
    from bulk.ray_job import SampleResult

MIN_PART_FILES = 128
"""A part costs 60 ms beside its files, for its Parquet file and the way to the next part."""
MAX_PART_FILES = 1024
_PARTS = 2000
"""About so many parts make a whole archive. A worker that dies loses at most one of them."""

_SAMPLE_TASKS_A_CORE = 4
"""The sample's parts are small, so that all cores are busy to the end."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where to run."""

    address: str | None
    """A Ray cluster's; None starts Ray on this machine."""
    num_workers: int | None
    """Cores to use; None takes all."""
    price: float | None = None
    """Of a core-hour."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    summary: str
    """For people."""
    is_complete: bool
    """Whether everything could be read."""


def run(job: Job, cluster: Cluster) -> Outcome:
    """Score every file of the source that has no row yet.

    Raises:
        BulkError: the run can't begin or go on.
    """
    listing = _list(job)
    with hold(job.folder) as manifest:
        items = listing.items
        known = manifest.check_job(JobFile(identity=job.identity, part_files=_part_files(items)))
        rest = manifest.remaining(items, job.identity)
        parts = [*divide(rest.new, known.part_files, job.identity), *rest.renewed]
        manifest.remove_strays(parts)
        num_unreadable = rest.num_kept
        if parts:
            num_unreadable += _score(job, cluster, manifest, parts)
        manifest.remove_strays()
        lines = [
            *_summary(job, manifest, len(items), sum(len(part.items) for part in parts)),
            *_remarks(listing, num_unreadable),
        ]
        is_complete = num_unreadable == 0 and listing.num_unlisted == 0
        return Outcome("\n".join(lines), is_complete)


def estimate(job: Job, cluster: Cluster) -> Estimate:
    """Score a sample, predict the whole, and keep the prediction beside the answers."""
    from bulk import ray_job  # noqa: PLC0415 - Ray is imported only if it is needed

    items = _list(job).items
    with hold(job.folder) as manifest:
        known = manifest.check_job(JobFile(identity=job.identity, part_files=_part_files(items)))
        chosen = sample(items, SAMPLE_FILES)
        started = time.monotonic()
        with ray_job.connected(cluster.address, cluster.num_workers) as num_workers:
            size = max(1, len(chosen) // (num_workers * _SAMPLE_TASKS_A_CORE))
            parts = list(divide(mix(chosen, size), size, job.identity))
            results = list(ray_job.run_sample(job, parts, num_workers))
        passed_s = time.monotonic() - started
        predicted = _predict(results, len(items), known.part_files, num_workers, passed_s)
        predicted.write(job.folder)
        return predicted


def _list(job: Job) -> Listing:
    """List the source; each path once, sorted."""
    listing = job.source.listing()
    if not listing.items:
        raise BulkError("the source has no files")
    by_path = {item.path: item for item in listing.items}
    return replace(listing, items=tuple(sorted(by_path.values())))


def _part_files(items: Sequence[Item]) -> int:
    return min(max(len(items) // _PARTS, MIN_PART_FILES), MAX_PART_FILES)


def _score(
    job: Job, cluster: Cluster, manifest: ArchiveManifest, parts: Sequence[ArchivePart]
) -> int:
    """Score parts and commit each; return how many files the source did not give."""
    from bulk import ray_job  # noqa: PLC0415 - Ray is imported only if it is needed

    num_items = {part.name: len(part.items) for part in parts}
    num_unreadable = 0
    used_s = 0.0
    interval_s = 1.0 if sys.stderr.isatty() else 30.0
    with (
        ray_job.connected(cluster.address, cluster.num_workers) as num_workers,
        tqdm(
            total=sum(num_items.values()), unit="file", mininterval=interval_s, maxinterval=60
        ) as bar,
    ):
        for entry in ray_job.run_parts(job, parts, num_workers):
            if entry.rows:
                manifest.commit(entry)
            num_unreadable += entry.num_unreadable
            used_s += entry.seconds
            if cluster.price is not None:
                bar.set_postfix_str(f"cost {used_s / 3600 * cluster.price:.2f}", refresh=False)
            bar.update(num_items[entry.part])
    return num_unreadable


def _summary(
    job: Job, manifest: ArchiveManifest, num_listed: int, num_scored: int
) -> Iterator[str]:
    entries = manifest.entries
    num_rows = sum(entry.rows for entry in entries)
    num_problems = sum(entry.num_problems for entry in entries)
    rows = (
        f"{num_rows:,} rows of {num_listed:,} files in {len(entries):,} parts; "
        f"{num_scored:,} are new"
    )
    yield f"{rows}; {num_problems:,} files have a problem code."
    predicted = Estimate.read(job.folder)
    if predicted is not None and predicted.num_files == num_rows:
        yield predicted.compare(entries)


def _remarks(listing: Listing, num_unreadable: int) -> Iterator[str]:
    if listing.num_passed_over:
        yield f"{listing.num_passed_over:,} pipes, sockets or devices were passed over."
    if num_unreadable:
        yield (
            f"{num_unreadable:,} files could not be read now. What was known of them stays; "
            f"the same command tries again."
        )
    if listing.num_unlisted:
        yield f"{listing.num_unlisted:,} folders or links could not be followed now."


def _predict(
    results: Sequence["SampleResult"],
    num_files: int,
    part_files: int,
    num_workers: int,
    passed_s: float,
) -> Estimate:
    table = pa.concat_tables([result.table for result in results])
    sample_s = sum(result.seconds for result in results)
    core_seconds = sample_s / table.num_rows * num_files
    start_s = max(0.0, passed_s - sample_s / num_workers)
    return Estimate(
        num_files=num_files,
        core_seconds=core_seconds,
        seconds=start_s + core_seconds / num_workers,
        num_workers=num_workers,
        num_bytes=predicted_bytes(table, num_files, part_files),
    )
