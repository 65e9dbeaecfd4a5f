"""The device process's end of the connection to one serving process.

Whatever that process had in work is dropped when its connection ends. Its records are checked: it
decodes files of strangers.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import cast

from app.errors import DeadlineExceeded, NotReady
from app.inference.device.open_versions import OpenVersion, OpenVersions
from app.inference.device.shared_memory_slots import SharedSlots
from app.inference.device.socket_records import Kind, Record, RecordReader, RecordWriter, Verdict
from app.inference.device.version_messages import OpenedVersion, WantedVersion
from app.inference.pending_request import InferenceResult, PendingRequest


class FrontConnection(asyncio.Protocol):
    """Belongs to one event loop."""

    def __init__(
        self,
        versions: OpenVersions,
        slots: SharedSlots,
        on_end: Callable[["FrontConnection"], None],
    ) -> None:
        self._versions = versions
        self._slots = slots
        self._on_end = on_end
        self._taken: dict[int, OpenVersion] = {}
        """The versions that this process uses, by its own numbers."""
        self._runs: dict[int, tuple[OpenVersion, PendingRequest]] = {}
        """What is in work, by slot."""
        self._tasks = set[asyncio.Task[None]]()
        self._reader = RecordReader()
        self._writer: RecordWriter
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say that runs are taken."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is of no such class
        self._writer = RecordWriter(self._transport)
        self._writer.write(Record(Kind.WELCOME))

    def data_received(self, data: bytes) -> None:
        """Take what the serving process says; end the connection if it is no sense."""
        try:
            for record, body in self._reader.feed(data):
                self._receive(record, body)
        except (ValueError, LookupError):
            self._transport.abort()

    def connection_lost(self, _exc: Exception | None) -> None:
        """Drop what the process had in work, and give its versions back."""
        for version, pending in list(self._runs.values()):
            version.batcher.withdraw(pending)
        for number in list(self._taken):
            self._close_version(number)
        self._on_end(self)

    def close(self) -> None:
        """End the connection."""
        self._transport.abort()

    def _receive(self, record: Record, body: bytes) -> None:
        if record.kind == Kind.RUN:
            self._begin(record)
        elif record.kind == Kind.CANCEL:
            run = self._runs.get(record.slot)
            if run is not None:  # else its end and this record have crossed
                version, pending = run
                version.batcher.withdraw(pending)
        elif record.kind == Kind.OPEN:
            wanted = WantedVersion.model_validate_json(body)
            self._spawn(self._open_version(record.version, wanted))
        elif record.kind == Kind.CLOSE:
            self._close_version(record.version)
        else:
            raise ValueError("a record of this kind is not for this process")

    def _begin(self, record: Record) -> None:
        """Let an image queue; raises `LookupError` or `ValueError` for a record that is none."""
        version = self._taken[record.version]
        slot = record.slot
        shape = version.shape
        if slot >= self._slots.num_slots or slot in self._runs:
            raise ValueError("a slot is none, or in use")
        if record.number not in (0, shape.num_facts):
            raise ValueError("metadata of another size than the graph's")
        try:
            pending = version.batcher.submit(
                self._slots.image_HW(slot, shape.side)[None],
                start_by=record.first,
                metadata_M=self._slots.metadata_M(slot, record.number) if record.number else None,
                with_map=bool(record.second),
            )
        except NotReady:
            self._say_done(slot, Verdict.STOPPED)
            return
        self._runs[slot] = (version, pending)
        pending.answer.add_done_callback(partial(self._finish, slot))

    def _finish(self, slot: int, answer: asyncio.Future[InferenceResult]) -> None:
        """Put a run's outputs into its slot, and say so."""
        del self._runs[slot]
        if answer.cancelled():
            self._say_done(slot, Verdict.CANCELLED)
            return
        error = answer.exception()
        if error is None:
            result = answer.result()
            self._slots.write_outputs(slot, result.outputs)
            self._say_done(slot, Verdict.ANSWERED, result.queue_s, result.run_s)
        else:
            is_late = isinstance(error, DeadlineExceeded)
            self._say_done(slot, Verdict.LATE if is_late else Verdict.FAILED)

    def _say_done(
        self, slot: int, verdict: Verdict, queue_s: float = 0.0, run_s: float = 0.0
    ) -> None:
        self._writer.write(Record(Kind.DONE, 0, slot, verdict, queue_s, run_s))

    async def _open_version(self, number: int, wanted: WantedVersion) -> None:
        version = await self._versions.take(wanted)
        if isinstance(version, str):
            opened = OpenedVersion(refusal=version)
        else:
            opened = version.opened
            if self._transport.is_closing() or number in self._taken:
                await self._versions.give_back(version)
            else:
                self._taken[number] = version
        body = opened.model_dump_json().encode()
        self._writer.write(Record(Kind.OPENED, number, number=len(body)), body)

    def _close_version(self, number: int) -> None:
        version = self._taken.pop(number, None)
        if version is not None:
            self._spawn(self._versions.give_back(version))

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
