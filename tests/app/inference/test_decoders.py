import asyncio
import math
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from app.errors import DeadlineExceeded, NotReady, Overloaded
from app.inference.batcher import Batcher
from app.inference.decoders import Decoders, Preparation, Prepared
from app.inference.decoders.upload_threads import Done
from app.models.execution_plan import ExecutionPlan
from app.telemetry import Metrics
from cxr.decode import DecodeLimits
from cxr.decode_and_preprocess import HEATMAP_SIDE, prepare
from cxr.errors import CorruptImage, DecodeLimit, ImageError, NeedsWorker, NotAChest, TooLarge
from cxr.preprocess import PreprocessSpec
from tests.app.fake_graph import FakeGraph
from tests.app.serving import until
from tests.factories import chest, make_dicom, make_jpeg, make_png

pytestmark = pytest.mark.anyio

PLAIN = Preparation(PreprocessSpec(size=32), DecodeLimits(), "refuse")
WITH_PREVIEW = replace(PLAIN, preview_side=HEATMAP_SIDE)


@asynccontextmanager
async def decoding(
    *, max_seconds: float = 20.0, max_memory_bytes: int = 2**30, workers: int = 1
) -> AsyncIterator[Decoders]:
    decoders = Decoders(
        num_threads=2,
        num_workers=workers,
        max_seconds=max_seconds,
        max_memory_bytes=max_memory_bytes,
    )
    decoders.start()
    try:
        yield decoders
    finally:
        await decoders.close()


def heavy_dicom(side: int = 128) -> bytes:
    """A file whose codec must run in a worker process."""
    return make_dicom(chest(side, side), syntax=JPEG2000Lossless)


async def worker_of(decoders: Decoders) -> int:
    """Wait until the worker answers, and give its process id."""
    await decoders.prepare(heavy_dicom(), PLAIN, start_by=math.inf)
    (process_id,) = decoders.worker_process_ids
    return process_id


def nothing(_prepared: Prepared) -> None:
    """Leave an image to the queue."""


@pytest.mark.parametrize("preparation", [PLAIN, WITH_PREVIEW], ids=["plain", "preview"])
async def test_a_worker_process_gives_what_a_thread_gives(preparation: Preparation) -> None:
    data = heavy_dicom()
    here = prepare(data, preparation)
    async with decoding() as decoders:
        there = await decoders.prepare(data, preparation, start_by=math.inf)

    np.testing.assert_array_equal(there.image_HW, here.image_HW)
    np.testing.assert_array_equal(there.preview_HW, here.preview_HW)
    assert (there.metadata, there.processing, there.warnings) == (
        here.metadata,
        here.processing,
        here.warnings,
    )


@pytest.mark.parametrize(
    "data",
    [
        make_png(chest()),
        make_jpeg(chest()),
        make_dicom(chest()),
        make_dicom(chest(), syntax=RLELossless),
    ],
    ids=["png", "jpeg", "uncompressed", "rle"],
)
async def test_quick_codecs_need_no_worker_process(data: bytes) -> None:
    decoders = Decoders(num_threads=1, num_workers=1, max_seconds=1, max_memory_bytes=2**30)
    prepared = await decoders.prepare(
        data, PLAIN, start_by=math.inf
    )  # no process was started that could do it
    await decoders.close()

    assert prepared.image_HW.shape == (32, 32)


async def test_what_is_wrong_with_a_file_comes_back_from_the_worker_as_itself() -> None:
    data = make_dicom(chest(128, 128), syntax=JPEGLSLossless, BodyPartExamined="FOOT")
    async with decoding() as decoders:
        with pytest.raises(NotAChest):
            await decoders.prepare(data, PLAIN, start_by=math.inf)
        with pytest.raises(TooLarge):
            await decoders.prepare(
                heavy_dicom(),
                replace(PLAIN, limits=DecodeLimits(max_pixels=5000)),
                start_by=math.inf,
            )


async def test_a_file_that_takes_too_long_is_stopped_and_the_next_one_is_decoded() -> None:
    async with decoding(max_seconds=3) as decoders:
        first_process = await worker_of(decoders)
        os.kill(first_process, signal.SIGSTOP)
        with pytest.raises(DecodeLimit, match="seconds"):
            await decoders.prepare(heavy_dicom(), PLAIN, start_by=math.inf)

        assert await worker_of(decoders) != first_process


async def test_a_worker_that_is_killed_over_a_file_costs_only_that_file() -> None:
    async with decoding() as decoders:
        process = await worker_of(decoders)
        os.kill(process, signal.SIGSTOP)
        held = asyncio.create_task(decoders.prepare(heavy_dicom(), PLAIN, start_by=math.inf))
        waiting = asyncio.create_task(decoders.prepare(heavy_dicom(), PLAIN, start_by=math.inf))
        await asyncio.sleep(0.1)
        os.kill(process, signal.SIGKILL)
        end, answer = await asyncio.gather(held, waiting, return_exceptions=True)

        assert isinstance(end, DecodeLimit)
        assert not isinstance(answer, BaseException)
        assert decoders.fault is None


async def test_a_worker_that_crashes_says_that_the_file_is_damaged() -> None:
    async with decoding() as decoders:
        process = await worker_of(decoders)
        os.kill(process, signal.SIGSTOP)
        held = asyncio.create_task(decoders.prepare(heavy_dicom(), PLAIN, start_by=math.inf))
        await asyncio.sleep(0.1)
        os.kill(process, signal.SIGSEGV)
        os.kill(process, signal.SIGCONT)

        with pytest.raises(CorruptImage):
            await held


async def test_a_worker_that_died_while_idle_is_replaced_before_the_next_file() -> None:
    async with decoding() as decoders:
        process = await worker_of(decoders)
        os.kill(process, signal.SIGKILL)
        await until(lambda: process not in decoders.worker_process_ids)
        await until(lambda: bool(decoders.worker_process_ids))

        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)  # it is no zombie either
        assert await worker_of(decoders) == decoders.worker_process_ids[0]


async def test_a_file_that_takes_too_much_memory_is_stopped() -> None:
    data = make_dicom(np.zeros((9000, 9000), np.uint16), syntax=JPEGLSLossless)
    async with decoding(max_memory_bytes=64 * 2**20) as decoders:
        with pytest.raises(ImageError) as stop:
            await decoders.prepare(
                data,
                replace(PLAIN, limits=DecodeLimits(max_pixels=10**9, max_inflated_bytes=10**9)),
                start_by=math.inf,
            )

    assert stop.value.code in ("decode_limit", "corrupt_image")


async def test_a_waiter_that_gives_up_does_not_disturb_the_pool() -> None:
    async with decoding() as decoders:
        process = await worker_of(decoders)
        abandoned = [
            asyncio.create_task(decoders.prepare(heavy_dicom(), PLAIN, start_by=math.inf))
            for _ in range(5)
        ]
        await asyncio.sleep(0.02)
        for task in abandoned:
            task.cancel()
        await asyncio.gather(*abandoned, return_exceptions=True)

        assert await worker_of(decoders) == process


async def test_a_file_whose_sender_gave_up_is_counted_until_its_end_and_learned_from() -> None:
    async with decoding() as decoders:
        process_id = await worker_of(decoders)
        pool = decoders._pool
        await until(lambda: pool.wait_s("") == 0)
        learned = pool._took_s
        os.kill(process_id, signal.SIGSTOP)
        waiter = asyncio.create_task(
            decoders.prepare_in_worker(heavy_dicom(), PLAIN, start_by=math.inf)
        )
        await until(lambda: pool.wait_s("") > 0 and not pool._jobs)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        waited_s = pool.wait_s("")
        os.kill(process_id, signal.SIGCONT)
        await until(lambda: pool.wait_s("") == 0)

    assert waited_s > 0
    assert pool._took_s != learned


async def begin(decoders: Decoders, sender: str, number: int) -> list[asyncio.Task[Prepared]]:
    """Let so many files of a sender wait for the worker process."""
    tasks = [
        asyncio.create_task(
            decoders.prepare_in_worker(heavy_dicom(), PLAIN, start_by=math.inf, sender=sender)
        )
        for _ in range(number)
    ]
    await asyncio.sleep(0)
    return tasks


async def test_a_sender_of_one_file_waits_for_few_files_of_another() -> None:
    async with decoding() as decoders:
        process_id = await worker_of(decoders)
        os.kill(process_id, signal.SIGSTOP)
        crowd = await begin(decoders, "crowd", 12)
        (single,) = await begin(decoders, "single", 1)
        os.kill(process_id, signal.SIGCONT)
        await single
        done_before = sum(task.done() for task in crowd)
        await asyncio.gather(*crowd)

    assert done_before <= 2


async def test_if_too_many_files_wait_the_sender_with_most_of_them_is_refused() -> None:
    async with decoding() as decoders:
        process_id = await worker_of(decoders)
        os.kill(process_id, signal.SIGSTOP)
        held = await begin(decoders, "crowd", 1)
        await until(lambda: not decoders._pool._jobs)
        crowd = await begin(decoders, "crowd", 66)
        await until(lambda: sum(task.done() for task in crowd) == 2)
        singles = [task for name in "ab" for task in await begin(decoders, name, 1)]
        await until(lambda: sum(task.done() for task in crowd) == 4)
        os.kill(process_id, signal.SIGCONT)
        ends = await asyncio.gather(*held, *crowd, *singles, return_exceptions=True)

    assert [type(end) for end in ends] == [Prepared] * 63 + [Overloaded] * 4 + [Prepared] * 2


async def test_closing_leaves_no_process_behind() -> None:
    async with decoding(workers=2) as decoders:
        await decoders.prepare(heavy_dicom(), PLAIN, start_by=math.inf)
        processes = decoders.worker_process_ids

    await until(lambda: not any(is_running(process) for process in processes))


def is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process_id}/stat").read_text().split()[2] != "Z"


async def test_the_picture_for_a_heat_map_keeps_its_shape_and_is_bounded() -> None:
    prepared = prepare(make_png(chest(600, 1200)), WITH_PREVIEW)

    assert prepared.preview_HW is not None
    assert prepared.preview_HW.shape == (HEATMAP_SIDE // 2, HEATMAP_SIDE)


async def test_the_image_is_the_same_with_and_without_a_heat_map() -> None:
    data = make_dicom(
        chest(1024, 1024), syntax=JPEGBaseline8Bit
    )  # a codec that averages while it decodes
    plain, with_preview = prepare(data, PLAIN), prepare(data, WITH_PREVIEW)

    np.testing.assert_array_equal(plain.image_HW, with_preview.image_HW)
    assert with_preview.preview_HW is not None
    assert max(with_preview.preview_HW.shape) == HEATMAP_SIDE


async def test_a_small_picture_is_not_enlarged_for_a_heat_map() -> None:
    prepared = prepare(make_png(chest(100, 80)), WITH_PREVIEW)

    assert prepared.preview_HW is not None
    assert prepared.preview_HW.shape == (100, 80)


async def test_the_next_step_is_taken_with_the_image_in_the_same_thread() -> None:
    seen = list[tuple[str, NDArray[np.uint8]]]()
    async with decoding() as decoders:
        done = await decoders.prepare_in_thread(
            lambda prepared: seen.append(
                (threading.current_thread().name, prepared.image_HW.copy())
            ),
            make_png(chest()),
            PLAIN,
            start_by=math.inf,
        )

    ((thread, image_HW),) = seen
    assert thread.startswith("decode")
    np.testing.assert_array_equal(image_HW, done[0].image_HW)


async def test_what_needs_a_worker_process_is_left_to_it_and_no_step_is_taken() -> None:
    steps = list[object]()
    async with decoding() as decoders:
        with pytest.raises(NeedsWorker):
            await decoders.prepare_in_thread(steps.append, heavy_dicom(), PLAIN, start_by=math.inf)
        prepared = await decoders.prepare_in_worker(heavy_dicom(), PLAIN, start_by=math.inf)

    assert steps == []
    assert prepared.image_HW.shape == (32, 32)


class Slow(bytes):
    """A file in work: the first look at it says so, and waits."""

    begun: threading.Event
    go_on: threading.Event

    def __len__(self) -> int:
        if threading.current_thread() is not threading.main_thread() and not self.begun.is_set():
            self.begun.set()
            self.go_on.wait(20)
        return super().__len__()


def slow_png() -> Slow:
    """A file that is in work until its `go_on` is set."""
    data = Slow(make_png(chest()))
    data.begun, data.go_on = threading.Event(), threading.Event()
    return data


async def test_nobody_runs_the_model_for_who_has_left_while_the_file_was_decoded() -> None:
    data, steps = slow_png(), list[object]()
    decoders = Decoders(num_threads=1, num_workers=1, max_seconds=1, max_memory_bytes=2**30)
    leaver = asyncio.create_task(
        decoders.prepare_in_thread(steps.append, data, PLAIN, start_by=math.inf)
    )
    await until(data.begun.is_set)
    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)
    data.go_on.set()
    await decoders.prepare_in_thread(nothing, make_png(chest()), PLAIN, start_by=math.inf)
    await decoders.close()

    assert steps == []


async def test_a_picture_that_takes_long_holds_up_no_upload_that_wants_an_answer() -> None:
    picture = slow_png()
    decoders = Decoders(num_threads=1, num_workers=1, max_seconds=1, max_memory_bytes=2**30)
    pictures = [
        asyncio.create_task(decoders.prepare(picture, PLAIN, start_by=math.inf)) for _ in range(8)
    ]
    await until(picture.begun.is_set)
    done = await decoders.prepare_in_thread(nothing, make_png(chest()), PLAIN, start_by=math.inf)
    are_drawn = [one.done() for one in pictures]
    picture.go_on.set()
    await asyncio.gather(*pictures)
    await decoders.close()

    assert done[0].image_HW.shape == (32, 32)
    assert not any(are_drawn)


async def test_a_file_that_no_thread_could_take_in_time_is_not_decoded() -> None:
    data = slow_png()
    decoders = Decoders(num_threads=1, num_workers=1, max_seconds=1, max_memory_bytes=2**30)
    first = asyncio.create_task(decoders.prepare(data, PLAIN, start_by=math.inf))
    await until(data.begun.is_set)
    late = asyncio.create_task(
        decoders.prepare(make_png(chest()), PLAIN, start_by=time.monotonic() + 0.05)
    )
    await asyncio.sleep(0.1)
    data.go_on.set()
    with pytest.raises(DeadlineExceeded):
        await late
    await first
    await decoders.close()


async def test_starts_that_failed_long_ago_do_not_end_decoding(
    no_process_starts: Callable[[], None],
) -> None:
    async with decoding() as decoders:
        await until(lambda: decoders.fault is not None)
        with pytest.raises(NotReady):
            await decoders.prepare(heavy_dicom(), PLAIN, start_by=math.inf)

        no_process_starts()
        await until(lambda: decoders.fault is None, seconds=60)
        prepared = await decoders.prepare(heavy_dicom(), PLAIN, start_by=math.inf)

    assert prepared.image_HW.shape == (32, 32)


@asynccontextmanager
async def running(graph: FakeGraph) -> AsyncIterator[Batcher]:
    """Yield a queue whose images may run two at a time."""
    plan = ExecutionPlan(1, 1, 2, seconds_per_image=0.05)
    batcher = Batcher(graph, Metrics(), plan, capacity=8)
    try:
        yield batcher
    finally:
        await batcher.close()


async def ask_both(decoders: Decoders, batcher: Batcher) -> list[Done]:
    """Send an upload to a thread that is busy with another one, and let both run."""
    slow = slow_png()

    async def ask(data: bytes) -> Done:
        with batcher.inline() as inline:
            return await decoders.prepare_in_thread(
                lambda prepared: inline.take(prepared.image_HW),
                data,
                PLAIN,
                start_by=math.inf,
                run_s=0.05,
            )

    first = asyncio.create_task(ask(slow))
    await until(slow.begun.is_set)
    second = asyncio.create_task(ask(make_png(chest())))
    await asyncio.sleep(0.05)
    slow.go_on.set()
    return list(await asyncio.gather(first, second))


async def test_an_upload_that_waits_for_the_thread_shares_a_run_with_the_one_before() -> None:
    graph = FakeGraph()
    decoders = Decoders(num_threads=1, num_workers=1, max_seconds=1, max_memory_bytes=2**30)
    async with running(graph) as batcher:
        done = await ask_both(decoders, batcher)
    await decoders.close()

    assert graph.batch_sizes == [2]
    assert all(one[1] is not None for one in done)


async def test_an_upload_that_would_be_late_waits_for_no_other() -> None:
    graph = FakeGraph()
    decoders = Decoders(num_threads=1, num_workers=1, max_seconds=1, max_memory_bytes=2**30)
    async with running(graph) as batcher:
        slow, data = slow_png(), make_png(chest())
        with batcher.inline() as one, batcher.inline() as other:
            first = asyncio.create_task(
                decoders.prepare_in_thread(
                    lambda prepared: one.take(prepared.image_HW),
                    slow,
                    PLAIN,
                    start_by=time.monotonic() + 30,
                    run_s=60,
                )
            )
            await until(slow.begun.is_set)
            second = asyncio.create_task(
                decoders.prepare_in_thread(
                    lambda prepared: other.take(prepared.image_HW),
                    data,
                    PLAIN,
                    start_by=math.inf,
                    run_s=60,
                )
            )
            await asyncio.sleep(0.05)
            slow.go_on.set()
            await asyncio.gather(first, second)
    await decoders.close()

    assert graph.batch_sizes == [1, 1]


async def ask_three(decoders: Decoders) -> tuple[bool, bool]:
    """Send two uploads behind one that holds the only thread; say whether they were answered."""
    slow = slow_png()
    first = asyncio.create_task(decoders.prepare_in_thread(nothing, slow, PLAIN, start_by=math.inf))
    await until(slow.begun.is_set)
    behind = [
        asyncio.create_task(
            decoders.prepare_in_thread(nothing, make_png(chest()), PLAIN, start_by=math.inf)
        )
        for _ in range(2)
    ]
    await asyncio.wait(behind, timeout=2, return_when=asyncio.FIRST_COMPLETED)
    was_helped = any(one.done() for one in behind)
    slow.go_on.set()
    await asyncio.gather(first, *behind)
    return was_helped, all(one.done() for one in behind)


@pytest.mark.parametrize("is_calm", [True, False])
async def test_a_spare_thread_helps_uploads_that_wait_unless_requests_are_refused(
    *, is_calm: bool
) -> None:
    decoders = Decoders(num_threads=1, num_workers=1, max_seconds=1, max_memory_bytes=2**30)
    decoders.help_while(lambda: is_calm)
    was_helped, are_answered = await ask_three(decoders)
    await decoders.close()

    assert was_helped == is_calm
    assert are_answered
