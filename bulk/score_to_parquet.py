"""What a worker does with one part: score its files, write its Parquet file.

Nothing here knows Ray. A worker process keeps the open graph from one part to the next.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from bulk.archive_parts import ArchivePart, Item, part_file_name
from bulk.errors import SourceUnreadable, SpoiltPart, using_out
from bulk.manifest import Entry
from bulk.part_file import read_table, write_table
from bulk.rows import UNREADABLE, Row, make_table
from bulk.score import Scorer
from bulk.scoring_job import Job, identity
from bulk.sources import Reader
from cxr.bundle import read_bundle
from cxr.decode import quiet_libraries
from cxr.errors import BundleError

_FIRST_FILES = 6
"""Of a sample's part, scored before its time counts. The part has files of all sizes in order, so
these are of every kind that is not rare."""

MAX_DEATHS = 3
"""Of workers over one file, before the file is given up."""


def score_part(job: Job, part: ArchivePart) -> Entry:
    """Score a part and write its file beside its place, then put it there at once.

    A part that lies there already is not made again: its name says that it would be the same. A
    part that replaces another one takes over the rows of the files that are not its own, or that
    the source does not give. If it gives none of them, nothing is written and the entry has no
    rows.
    """
    path = job.folder / part.file_name
    with suppress(SpoiltPart):
        table = read_table(path)
        return _entry(part, table, path, num_unreadable=_num_unreadable(table), seconds=0.0)
    worker = _open_worker(job)
    started = time.perf_counter()
    with _journal(job.folder / part.journal_name) as journal:
        scored = make_table(
            [worker.row(item, index, journal) for index, item in enumerate(part.items)]
        )
    num_unreadable = _num_unreadable(scored)
    if num_unreadable == len(part.items) and part.replaces:
        return Entry(part=part.name, replaces=part.replaces, num_unreadable=num_unreadable)
    table = _renewed(job, part, scored) if part.replaces else scored
    write_table(table, path)
    seconds = time.perf_counter() - started
    return _entry(part, table, path, num_unreadable=num_unreadable, seconds=seconds)


def score_sample(job: Job, part: ArchivePart) -> tuple[pa.Table, float]:
    """Score files without writing them; return their table, and the seconds that it took.

    Some files are scored once before, and not counted. A new worker's first answer about each kind
    of file takes longer, which matters in a sample and not in an archive.
    """
    worker = _open_worker(job)
    step = max(1, len(part.items) // _FIRST_FILES)
    for item in part.items[::step]:
        worker.row(item, 0, None)
    started = time.perf_counter()
    table = make_table([worker.row(item, 0, None) for item in part.items])
    return table, time.perf_counter() - started


class Journal:
    """Which file of a part is at work, so that the file over which a worker died is known.

    Workers also die for other reasons, so such a file is a suspect and no more: the next attempt
    decodes it in a process that may die. After `MAX_DEATHS` it is not touched again.
    """

    def __init__(self, path: Path) -> None:
        """Read what earlier attempts left: file numbers, and `!` after the last of an attempt."""
        with using_out():
            words = path.read_text(encoding="ascii").split() if path.exists() else []
            self._file = path.open("w", encoding="ascii")
        if words and words[-1] != "!":
            words.append("!")
        ends = (index for index, word in enumerate(words) if word == "!")
        self._deaths = Counter(words[index - 1] for index in ends)
        self._write(*(word for index in self._deaths.elements() for word in (index, "!")))

    def begin(self, index: int) -> None:
        """Note that the work on a file begins."""
        self._write(str(index))

    def deaths(self, index: int) -> int:
        """Return how many workers died while they were at work on a file."""
        return self._deaths[str(index)]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, *words: str) -> None:
        with using_out():
            self._file.writelines(f"{word}\n" for word in words)
            self._file.flush()


@contextmanager
def _journal(path: Path) -> Iterator[Journal]:
    """Keep a journal until the part is scored; one that a dead worker leaves stays."""
    journal = Journal(path)
    try:
        yield journal
    finally:
        journal.close()
    path.unlink(missing_ok=True)


class _ScoringWorker:
    """A job's open graph and its open source."""

    def __init__(self, job: Job) -> None:
        quiet_libraries()
        pa.set_cpu_count(1)
        bundle = read_bundle(job.bundle_path)
        if job.identity != identity(bundle, job.options):
            raise BundleError("the model on this node is another one than the driver's")
        self.job = job
        self._scorer = Scorer(bundle, job.options)
        self._reader: Reader = job.source.reader()

    def row(self, item: Item, index: int, journal: Journal | None) -> Row:
        """Return a file's row; never raises because of the file."""
        try:
            data = self._reader.read(item, self.job.options.limits.max_bytes)
        except SourceUnreadable:
            detail = "The source did not give the file."
            row = Row(item.path, item.fingerprint, problem=UNREADABLE, problem_detail=detail)
            return self.job.source.name(row)
        deaths = 0
        if journal is not None:
            journal.begin(index)
            deaths = journal.deaths(index)
        if deaths >= MAX_DEATHS:
            return self.job.source.name(self._scorer.give_up(item, data))
        return self.job.source.name(self._scorer.score(item, data, is_suspect=deaths > 0))

    def close(self) -> None:
        """End the decoding process, and close the source."""
        self._scorer.close()
        self._reader.close()


_open: list[_ScoringWorker] = []
"""The process's open worker, if it has one."""


def _open_worker(job: Job) -> _ScoringWorker:
    """Return the worker of a job; one of another job is closed first."""
    if _open and _open[0].job == job:
        return _open[0]
    while _open:
        _open.pop().close()
    _open.append(_ScoringWorker(job))
    return _open[0]


def _renewed(job: Job, part: ArchivePart, scored: pa.Table) -> pa.Table:
    """Return the rows of the part that is replaced, with the new rows in their places."""
    new = scored.filter(pc.not_equal(pc.fill_null(scored["problem"], ""), UNREADABLE))
    old = read_table(job.folder / part_file_name(part.replaces)).cast(scored.schema)
    kept = old.filter(pc.invert(pc.is_in(old["path"], new["path"])))
    return pa.concat_tables([kept, new]).sort_by("path")


def _num_unreadable(table: pa.Table) -> int:
    return int(pc.sum(pc.equal(table["problem"], UNREADABLE)).as_py() or 0)


def _entry(
    part: ArchivePart, table: pa.Table, path: Path, *, num_unreadable: int, seconds: float
) -> Entry:
    return Entry(
        part=part.name,
        replaces=part.replaces,
        rows=table.num_rows,
        num_problems=table.num_rows - table["problem"].null_count,
        num_unreadable=num_unreadable,
        num_bytes=path.stat().st_size,
        seconds=seconds,
    )
