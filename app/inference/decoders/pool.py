"""A small pool of worker processes, each of which does one file at a time and may be killed over
it.

    run(file) --> fair queue --> slot x n: keeps one process alive, and feeds it

Senders share the processes by time: who used them least is next.

A process that takes too long is killed and replaced; one that dies costs only
the file that it held.  A slot whose process won't start tries again, ever more
seldom; while no slot has one, the pool fails its waiters, and says so by `fault`.
"""

import asyncio
import logging
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

from app.errors import NotReady, Overloaded
from app.inference.fair_queue import FairQueue
from cxr.decode_and_preprocess import Preparation, Prepared
from cxr.errors import ImageError
from cxr.stoppable_decoder import StoppableDecoder

logger = logging.getLogger("cxr.decoders")

_SECONDS_PER_BYTE = 1e-7
"""What a file is taken to need if its headers were not read: JPEG 2000 takes about as long."""

_LEAST_SECONDS = 0.02
"""What any file needs: it is sent to another process."""

_MEMORY = 0.9
"""Share of the past in the running means of what files took and of what was estimated."""

_START_ATTEMPTS = 3
"""Vain starts after which senders are told; a frozen or crowded machine may need more of them."""

_REFUSAL_S = 0.1
"""Seconds before a refusal. Its file was read already, so it costs more than others, and a sender
that tries again at once would take a core."""

_MAX_WAITING = 64
"""Files that wait for a process. They hold places in the models' queues, of which ordinary files
need some. The sender with most of them is refused first."""

_LONGEST_PAUSE_S = 30.0

_IDLE_DEATH_PAUSE_S = 1.0
"""Seconds before a process is replaced that died before it had a file: starts take a core."""

_NO_START = "Worker processes for decoding do not start."


@dataclass(eq=False, repr=False, slots=True)
class _Job:
    data: bytes
    preparation: Preparation
    answer: asyncio.Future[Prepared]
    estimate_s: float

    def fail(self, error: Exception) -> None:
        """End the wait with an error, unless nobody waits any more."""
        if not self.answer.done():
            self.answer.set_exception(error)


class WorkerPool:
    """The worker processes; belongs to one event loop."""

    def __init__(self, num_workers: int, *, max_seconds: float, max_memory_bytes: int) -> None:
        self._num_workers = num_workers
        self._max_seconds = max_seconds
        self._max_memory_bytes = max_memory_bytes
        self._jobs = FairQueue[_Job](_MAX_WAITING)
        self._has_jobs = asyncio.Event()
        self._threads = ThreadPoolExecutor(num_workers, thread_name_prefix="decode-worker")
        self._processes: set[StoppableDecoder] = set()
        self._slots: list[asyncio.Task[None]] = []
        self._fault: str | None = None
        self._closing = False
        self._num_started = 0
        self._in_work = set[_Job]()
        self._took_s = 1.0
        self._estimated_s = 1.0

    @property
    def fault(self) -> str | None:
        """Why no worker answers now; None while one may. It ends if a process starts after all."""
        return self._fault

    @property
    def process_ids(self) -> tuple[int, ...]:
        """The processes that live now."""
        return tuple(process.process_id for process in self._processes)

    def start(self) -> None:
        """Start the processes in the background; files wait until the first one is up."""
        for number in range(self._num_workers):
            slot = asyncio.create_task(self._keep_slot(), name=f"decode-slot-{number}")
            slot.add_done_callback(self._on_slot_end)
            self._slots.append(slot)

    def wait_s(self, sender: str, estimate_s: float = _LEAST_SECONDS) -> float:
        """Return the seconds until a worker would take a file of this sender that comes now."""
        in_work_s = sum(job.estimate_s for job in self._in_work)
        before_s = self._bias * in_work_s + self._jobs.cost_before(sender, self._bias * estimate_s)
        return before_s / self._num_workers

    @property
    def _bias(self) -> float:
        """How much longer files took than was estimated."""
        return self._took_s / self._estimated_s

    async def run(
        self,
        data: bytes,
        preparation: Preparation,
        *,
        deadline: float,
        sender: str,
        seconds: float | None,
    ) -> Prepared:
        """Prepare one file in a worker process, in the sender's turn.

        Args:
            data: the file.
            preparation: how to prepare it.
            deadline: on `time.monotonic`'s clock.
            sender: who takes turns with others.
            seconds: how long decoding may take by the file's headers, if they were read.

        Raises:
            ImageError: what is wrong with the file; `DecodeLimit` if it took too long or too
                much memory.
            NotReady: the pool has died.
            Overloaded: the file would wait beyond its deadline, or too many files wait.
        """
        if self._fault or self._closing:
            raise NotReady(self._fault or "The service is going down.")
        left_s = deadline - time.monotonic()
        answer: asyncio.Future[Prepared] = asyncio.get_running_loop().create_future()
        if seconds is None:
            seconds = len(data) * _SECONDS_PER_BYTE
        job = _Job(data, preparation, answer, max(_LEAST_SECONDS, seconds))
        try:
            self._put(sender, job, left_s)
            return await answer
        except Overloaded:
            await asyncio.sleep(min(_REFUSAL_S, max(0.0, left_s / 2)))
            raise

    def _put(self, sender: str, job: _Job, left_s: float) -> None:
        """Let a job wait, or raise `Overloaded`; the newest of the largest sender gives way."""
        late_s = self.wait_s(sender, job.estimate_s) - left_s
        if late_s > 0:
            raise _overloaded(late_s)
        if self._jobs.is_full:
            self._jobs.take_out(lambda job: job.answer.done())
        refused = self._jobs.put(sender, job, self._bias * job.estimate_s)
        if refused is not None:
            refused.fail(_overloaded(self.wait_s(sender)))
        self._has_jobs.set()

    async def close(self) -> None:
        """Kill the processes, also those at work, and wait until they are gone."""
        self._closing = True
        for slot in self._slots:
            slot.cancel()
        for process in list(self._processes):
            process.kill()
        await asyncio.gather(*self._slots, return_exceptions=True)
        await asyncio.to_thread(self._threads.shutdown)

    async def _run_job(self, sender: str, job: _Job, process: StoppableDecoder) -> None:
        """Do one job, and learn from the time that it took, though its sender may have given up."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        expected_s = job.estimate_s * self._bias
        self._jobs.charge(sender, expected_s)
        self._in_work.add(job)
        try:
            await loop.run_in_executor(
                self._threads, _settle, loop, job, process, self._max_seconds
            )
        finally:
            self._in_work.discard(job)
            seconds = loop.time() - started
            self._jobs.charge(sender, seconds - expected_s)
            self._took_s = _MEMORY * self._took_s + (1 - _MEMORY) * seconds
            self._estimated_s = _MEMORY * self._estimated_s + (1 - _MEMORY) * job.estimate_s

    async def _keep_slot(self) -> None:
        while True:
            process = await self._start_process()
            self._num_started += 1
            self._fault = None
            num_done = 0
            try:
                num_done = await self._feed(process)
            finally:
                self._num_started -= 1
                process.kill()
                self._processes.discard(process)
            if num_done == 0:
                await asyncio.sleep(_IDLE_DEATH_PAUSE_S)

    async def _feed(self, process: StoppableDecoder) -> int:
        """Do jobs until the process is dead, and return how many it was given. If it dies while
        idle, that is no fault of any file.
        """
        num_done = 0
        loop = asyncio.get_running_loop()
        loop.add_reader(process.sentinel, self._has_jobs.set)
        try:
            while process.is_alive:
                if not self._jobs:
                    self._has_jobs.clear()
                    await self._has_jobs.wait()
                    continue
                sender, job = self._jobs.pop()
                if not job.answer.done():  # else its sender gave up while it waited
                    num_done += 1
                    await self._run_job(sender, job, process)
        finally:
            loop.remove_reader(process.sentinel)
        return num_done

    async def _start_process(self) -> StoppableDecoder:
        """Try until a process is up, ever more seldom."""
        loop = asyncio.get_running_loop()
        for attempt in count(1):
            process = StoppableDecoder(self._max_memory_bytes)
            self._processes.add(process)
            if await loop.run_in_executor(self._threads, process.start):
                break
            self._processes.discard(process)
            logger.error("a decode worker did not start", extra={"attempt": attempt})
            if attempt >= _START_ATTEMPTS:
                self._refuse_if_nobody_works()
                await asyncio.sleep(min(attempt - _START_ATTEMPTS + 1.0, _LONGEST_PAUSE_S))
        return process

    def _refuse_if_nobody_works(self) -> None:
        if self._num_started == 0:
            self._fail_waiting()

    def _on_slot_end(self, slot: asyncio.Task[None]) -> None:
        if self._closing or not all(other.done() for other in self._slots):
            return
        logger.critical(
            "the decode workers are gone",
            exc_info=slot.exception() if not slot.cancelled() else None,
        )
        self._fail_waiting()

    def _fail_waiting(self) -> None:
        self._fault = _NO_START
        for job in self._jobs.take_out(lambda _: True):
            job.fail(NotReady(self._fault))


def _overloaded(wait_s: float) -> Overloaded:
    return Overloaded(
        "Too many files wait for this decoder.", retry_after_s=max(1, math.ceil(wait_s))
    )


def _settle(
    loop: asyncio.AbstractEventLoop, job: _Job, process: StoppableDecoder, max_seconds: float
) -> None:
    """Do one job in this thread and hand its end to the event loop."""
    try:
        prepared = process.prepare(job.data, job.preparation, max_seconds)
    except ImageError as error:
        loop.call_soon_threadsafe(job.fail, error)
    else:
        loop.call_soon_threadsafe(_succeed, job, prepared)


def _succeed(job: _Job, prepared: Prepared) -> None:
    if not job.answer.done():
        job.answer.set_result(prepared)
