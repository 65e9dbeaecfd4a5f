"""The threads that decode uploads and run their images, and the queue that hands work to them.

    upload -> prepare -> prepare the next one too, if it waits -> one run of both

Between two runs of a graph, Python's own code is in no cache of the processor. So an upload takes
one plain queue to a thread and one call of the event loop back, and two that wait share a run.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from app.cpu import COMPUTE_NICENESS, step_back
from app.errors import DeadlineExceeded
from app.inference.inline_runs import InlineImage, run_inline
from app.inference.pending_request import InferenceResult
from cxr.decode_and_preprocess import Preparation, Prepared, prepare

_WORTH_A_SPARE = 2
"""Uploads that wait for a thread before the spare one helps."""

_SPARE_WAIT_S = 0.1
"""Seconds for which the spare thread waits for a run slot; then its images queue."""

NOT_BEGUN = "The deadline passed before the file was decoded."

Done = tuple[Prepared, InferenceResult | None]
"""An upload's image, and what its run gave; None if it has not run."""


@dataclass(eq=False, slots=True)
class UploadTask:
    """The work of a thread on one upload, and whether anybody still waits for it."""

    data: bytes
    preparation: Preparation
    start_by: float
    """On `time.monotonic`'s clock; what has not begun by then is not begun."""
    step: Callable[[Prepared], InlineImage | None]
    """Return the image if it is to run in the same thread."""
    learn: Callable[[float], object]
    """Take the seconds of a file whose sender gave up: it cost as much as any other."""
    decode_s: float
    """Expected seconds of the preparation."""
    run_s: float
    """Expected seconds of the run."""
    answer: asyncio.Future[Done]
    is_wanted: bool = True
    result: Done | BaseException | None = None

    def prepare(self) -> InlineImage | None:
        """Prepare the upload, in a thread. Return its image if that is to run now."""
        try:
            return self._prepare() if self.is_wanted else None
        except BaseException as error:  # the thread goes on, and the sender hears of it
            self.result = error
            return None

    def _prepare(self) -> InlineImage | None:
        if time.monotonic() >= self.start_by:
            raise DeadlineExceeded(NOT_BEGUN)
        prepared = prepare(self.data, self.preparation, can_be_stopped=False)
        self.result = prepared, None
        if not self.is_wanted:
            self.learn(prepared.seconds)
            return None
        return self.step(prepared)

    def can_join(self, first: "UploadTask") -> bool:
        """Tell whether another upload, which is prepared, may wait for this one."""
        is_short = self.decode_s < self.run_s
        return is_short and time.monotonic() + self.decode_s + self.run_s < first.start_by

    def keep(self, outcome: InferenceResult | Exception | None) -> None:
        """Keep what the run gave; None if the image must queue."""
        if isinstance(self.result, tuple):
            prepared, _ = self.result
            self.result = outcome if isinstance(outcome, Exception) else (prepared, outcome)

    def settle(self) -> None:
        """Answer the one who waits, in the event loop."""
        if self.answer.done():
            return
        if isinstance(self.result, tuple):
            self.answer.set_result(self.result)
        else:
            self.answer.set_exception(self.result or asyncio.CancelledError())


@dataclass(eq=False, slots=True)
class StepTask:
    """Another step of an answer, on pixels."""

    step: Callable[[], object]
    answer: asyncio.Future[Any]
    result: object = None
    error: BaseException | None = None

    def do(self) -> None:
        """Take the step, in a thread."""
        try:
            self.result = self.step()
        except BaseException as error:  # as above
            self.error = error

    def settle(self) -> None:
        """Answer the one who waits, in the event loop."""
        if self.answer.done():
            return
        if self.error is not None:
            self.answer.set_exception(self.error)
        else:
            self.answer.set_result(self.result)


class UploadThreads:
    """The threads of one event loop; they begin with the first work."""

    def __init__(self, num_threads: int) -> None:
        self.is_calm: Callable[[], bool] = _never
        """Whether a spare thread may work, too.

        It uses the time for which the others wait for the interpreter. The event loop then waits
        for a core, so this thread must stand back while requests are refused.
        """
        self._num_threads = num_threads
        self._uploads = deque[UploadTask]()
        self._steps = deque[StepTask]()
        self._work: SimpleQueue[bool] = SimpleQueue()
        """One entry for each upload and each step that waits; False ends a thread."""
        self._spare_work: SimpleQueue[bool] = SimpleQueue()
        self._is_spare_idle = True
        self._is_started = False

    def submit(self, task: UploadTask | StepTask) -> None:
        """Let work wait for a thread. A step goes before uploads that have not begun."""
        if not self._is_started:
            self._start(asyncio.get_running_loop())
        if isinstance(task, StepTask):
            self._steps.append(task)
        else:
            self._uploads.append(task)
        self._work.put(True)
        if len(self._uploads) >= _WORTH_A_SPARE and self._is_spare_idle and self.is_calm():
            self._is_spare_idle = False
            self._spare_work.put(True)

    def close(self) -> None:
        """Let the threads end after the work that they have in hand."""
        uploads, steps = self._uploads.copy(), self._steps.copy()  # threads go on taking from them
        for answer in (*(one.answer for one in uploads), *(one.answer for one in steps)):
            answer.cancel()
        for _ in range(self._num_threads):
            self._work.put(False)
        self._spare_work.put(False)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_started = True
        for number in range(self._num_threads):
            threading.Thread(
                target=self._serve, args=(loop,), name=f"decode-{number}", daemon=True
            ).start()
        threading.Thread(
            target=self._serve_spare, args=(loop,), name="decode-spare", daemon=True
        ).start()

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        step_back(COMPUTE_NICENESS)
        while self._work.get():
            _hand_back(loop, self._do_step() or self._do_uploads())

    def _serve_spare(self, loop: asyncio.AbstractEventLoop) -> None:
        step_back(COMPUTE_NICENESS)
        while self._spare_work.get():
            with suppress(Empty):
                if self._work.get_nowait():
                    _hand_back(loop, self._do_step() or self._do_uploads(_SPARE_WAIT_S))
                else:
                    self._work.put(False)
            self._is_spare_idle = True

    def _do_step(self) -> Sequence[StepTask]:
        try:
            task = self._steps.popleft()
        except IndexError:
            return ()
        task.do()
        return (task,)

    def _do_uploads(self, slot_wait_s: float = 0.0) -> Sequence[UploadTask]:
        """Prepare the upload that waits longest, and the next one if both can share a run.

        Wait so long for a run slot, which is free unless there are more threads than slots.
        """
        try:
            tasks = [self._uploads.popleft()]
        except IndexError:  # another thread has taken it as a companion
            return ()
        images = {task: image for task in tasks if (image := task.prepare()) is not None}
        while images and len(tasks) < images[tasks[0]].most_together:
            companion = self._take_companion(tasks[0])
            if companion is None:
                break
            tasks.append(companion)
            if (image := companion.prepare()) is not None:
                images[companion] = image
        outcomes = run_inline(tuple(images.values()), slot_wait_s=slot_wait_s)
        for task, outcome in zip(images, outcomes, strict=True):
            task.keep(outcome)
        return tasks

    def _take_companion(self, first: UploadTask) -> UploadTask | None:
        """Return the next upload that waits, unless the first one would be late by it."""
        try:
            if not self._uploads[0].can_join(first):
                return None
            companion = self._uploads.popleft()
            if not self._work.get_nowait():
                self._work.put(False)
        except IndexError:
            return None
        except Empty:  # its entry is yet to come, and will find no work
            pass
        return companion


def _hand_back(
    loop: asyncio.AbstractEventLoop, tasks: Sequence[UploadTask] | Sequence[StepTask]
) -> None:
    if tasks:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, tasks)


def _settle(tasks: Sequence[UploadTask | StepTask]) -> None:
    for task in tasks:
        task.settle()


def _never() -> bool:
    return False
