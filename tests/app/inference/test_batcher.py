import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.errors import DeadlineExceeded, InferenceFailed, NotReady
from app.inference.batcher import Batcher
from app.inference.inline_runs import InlineImage, InlineRun, run_inline
from app.inference.pending_request import InferenceResult
from app.models.execution_plan import ExecutionPlan
from app.telemetry import Metrics
from cxr.errors import GraphError
from tests.app.fake_graph import CELLS, FakeGraph
from tests.app.serving import until

pytestmark = pytest.mark.anyio

Views = NDArray[np.uint8]
BAD = 13


@asynccontextmanager
async def batching(
    graph: FakeGraph, *, run_slots: int = 1, max_batch: int = 8, capacity: int = 64
) -> AsyncIterator[Batcher]:
    plan = ExecutionPlan(run_slots, 1, max_batch, seconds_per_image=0.05)
    batcher = Batcher(graph, Metrics(), plan, capacity=capacity)
    try:
        yield batcher
    finally:
        graph.gate.set()
        await batcher.close()


def views(*greys: int) -> Views:
    return np.stack([np.full((8, 8), grey, np.uint8) for grey in greys])


def ask(
    batcher: Batcher, *greys: int, seconds: float = 20.0, with_map: bool = True
) -> asyncio.Task[InferenceResult]:
    start_by = time.monotonic() + seconds
    return asyncio.create_task(batcher.run(views(*greys), start_by=start_by, with_map=with_map))


@contextmanager
def admitted(batcher: Batcher) -> Iterator[None]:
    """Count one image as admitted."""
    batcher.capacity.hold(1)
    try:
        yield
    finally:
        batcher.capacity.release(1)


async def hold_runners(
    graph: FakeGraph, batcher: Batcher, *, run_slots: int = 1
) -> list[asyncio.Task[InferenceResult]]:
    """Keep every runner busy at the gate, so that later images must queue."""
    graph.gate.clear()
    busy = []
    for number in range(run_slots):
        busy.append(ask(batcher, 0))
        await until(lambda number=number: len(graph.batch_sizes) == number + 1)
    return busy


async def test_every_upload_gets_its_own_views_back_in_order(graph: FakeGraph) -> None:
    async with batching(graph, run_slots=2, max_batch=4) as batcher:
        answers = await asyncio.gather(
            *(ask(batcher, first, first + 1, first + 2) for first in range(0, 60, 3))
        )

    logits = [answer.outputs.logit_N * 255 for answer in answers]
    np.testing.assert_allclose(np.concatenate(logits), np.arange(60), atol=1e-4)


async def test_a_runner_takes_all_that_is_queued_up_to_the_largest_batch(graph: FakeGraph) -> None:
    async with batching(graph, max_batch=4) as batcher:
        busy = await hold_runners(graph, batcher)
        waiting = [ask(batcher, grey) for grey in range(6)]
        await asyncio.sleep(0)
        graph.gate.set()
        await asyncio.gather(*busy, *waiting)

    assert graph.batch_sizes == [1, 4, 2]


async def test_a_batch_draws_maps_if_one_of_its_requests_wants_them(graph: FakeGraph) -> None:
    async with batching(graph, max_batch=2) as batcher:
        busy = await hold_runners(graph, batcher)
        waiting = [ask(batcher, grey, with_map=grey == 2) for grey in range(4)]
        await asyncio.sleep(0)
        graph.gate.set()
        answers = [answer.outputs for answer in await asyncio.gather(*busy, *waiting)]

    assert graph.drew_maps == [True, False, True]
    assert [answer.cam_Nhw.size > 0 for answer in answers] == [True, False, False, True, False]


async def test_views_without_a_map_may_lie_in_a_batch_that_draws_maps(graph: FakeGraph) -> None:
    async with batching(graph, max_batch=2) as batcher:
        busy = await hold_runners(graph, batcher)
        waiting = [ask(batcher, 1, 2, 3, with_map=False), ask(batcher, 4)]
        await asyncio.sleep(0)
        graph.gate.set()
        first, second = [answer.outputs for answer in await asyncio.gather(*waiting)]
        await asyncio.gather(*busy)

    assert graph.drew_maps == [True, False, True]
    np.testing.assert_allclose(first.logit_N * 255, [1, 2, 3], atol=1e-4)
    assert first.cam_Nhw.shape == (3, 0, 0)
    assert second.cam_Nhw.shape == (1, CELLS, CELLS)


async def test_runs_that_draw_maps_do_not_change_what_a_run_is_expected_to_take(
    graph: FakeGraph,
) -> None:
    async with batching(graph) as batcher:
        before = batcher.own_seconds(1)
        await ask(batcher, 1, with_map=True)
        with_maps = batcher.own_seconds(1)
        await ask(batcher, 1, with_map=False)
        without_maps = batcher.own_seconds(1)

    assert with_maps == before
    assert without_maps < before


async def test_a_lone_image_does_not_wait_for_company(graph: FakeGraph) -> None:
    async with batching(graph, max_batch=64) as batcher:
        answer = await ask(batcher, 7)

    assert answer.queue_s < 0.1


async def test_idle_runners_share_the_views_of_one_upload(graph: FakeGraph) -> None:
    async with batching(graph, run_slots=2) as batcher:
        await ask(batcher, 1, 2, 3, 4)

    assert graph.batch_sizes == [2, 2]


async def test_an_upload_whose_deadline_passed_is_dropped_before_the_run(graph: FakeGraph) -> None:
    async with batching(graph) as batcher:
        busy = await hold_runners(graph, batcher)
        late = ask(batcher, 1, seconds=0.02)
        await asyncio.sleep(0.05)
        graph.gate.set()
        with pytest.raises(DeadlineExceeded):
            await late
        await asyncio.gather(*busy)

    assert graph.batch_sizes == [1]


async def test_a_waiter_that_gives_up_costs_no_run_and_leaves_the_queue(graph: FakeGraph) -> None:
    async with batching(graph) as batcher:
        busy = await hold_runners(graph, batcher)
        abandoned = [ask(batcher, grey, grey) for grey in range(5)]
        await asyncio.sleep(0)
        for waiter in abandoned:
            waiter.cancel()
        await asyncio.gather(*abandoned, return_exceptions=True)
        wanted = ask(batcher, 9)
        graph.gate.set()
        await asyncio.gather(*busy, wanted)

    assert graph.batch_sizes == [1, 1]


async def test_a_waiter_that_gives_up_during_its_run_does_not_stop_the_runner(
    graph: FakeGraph,
) -> None:
    async with batching(graph) as batcher:
        (busy,) = await hold_runners(graph, batcher)
        busy.cancel()
        graph.gate.set()
        answer = await ask(batcher, 51)

    assert answer.outputs.logit_N[0] == pytest.approx(0.2)


async def test_one_bad_image_fails_alone_among_its_batch(graph: FakeGraph) -> None:
    graph.failure = fail_on(GraphError("bad"))
    async with batching(graph) as batcher:
        busy = await hold_runners(graph, batcher)
        tasks = [ask(batcher, grey) for grey in (1, BAD, 2)]
        await asyncio.sleep(0)
        graph.gate.set()
        good, bad, other = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*busy)

    assert isinstance(bad, InferenceFailed)
    assert isinstance(good, InferenceResult)
    assert isinstance(other, InferenceResult)


async def test_any_exception_of_the_graph_fails_its_image_and_not_the_runner(
    graph: FakeGraph,
) -> None:
    graph.failure = fail_on(ZeroDivisionError("a foreign fault"))
    async with batching(graph) as batcher:
        with pytest.raises(InferenceFailed):
            await ask(batcher, BAD)
        await ask(batcher, 1)

        assert batcher.fault is None


async def test_outputs_that_are_not_numbers_are_a_failure_and_no_answer(graph: FakeGraph) -> None:
    graph.offset = float("nan")
    async with batching(graph) as batcher:
        with pytest.raises(InferenceFailed):
            await ask(batcher, 1)


async def test_a_runner_that_dies_fails_its_waiters_and_says_so(graph: FakeGraph) -> None:
    class Fatal(BaseException):
        pass

    graph.failure = fail_on(Fatal())
    async with batching(graph) as batcher:
        busy = await hold_runners(graph, batcher)
        tasks = [ask(batcher, BAD), ask(batcher, 1, 2, 3, 4, 5, 6, 7, 8, 9)]
        await asyncio.sleep(0)
        graph.gate.set()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*busy)

        assert all(isinstance(end, InferenceFailed) for end in ends)
        assert batcher.fault
        with pytest.raises(NotReady):
            batcher.capacity.check_open()


async def test_a_runner_that_dies_over_one_image_fails_its_whole_batch(graph: FakeGraph) -> None:
    class Fatal(BaseException):
        pass

    def failure(batch_NHW: Views) -> None:
        if len(batch_NHW) > 1:
            raise GraphError
        if batch_NHW[0, 0, 0] == BAD:
            raise Fatal

    graph.failure = failure
    async with batching(graph) as batcher:
        busy = await hold_runners(graph, batcher)
        tasks = [ask(batcher, grey) for grey in (1, BAD, 2)]
        await asyncio.sleep(0)
        graph.gate.set()
        first, bad, last = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*busy)

    assert isinstance(first, InferenceResult)
    assert isinstance(bad, InferenceFailed)
    assert isinstance(last, InferenceFailed)


async def test_closing_waits_for_what_was_admitted_and_has_not_come_yet(graph: FakeGraph) -> None:
    async with batching(graph) as batcher:
        with admitted(batcher):
            closing = asyncio.create_task(batcher.close())
            await asyncio.sleep(0.02)
            assert not closing.done()
            await ask(batcher, 1)
        await closing


async def test_closing_finishes_what_was_taken_and_takes_no_more(graph: FakeGraph) -> None:
    async with batching(graph) as batcher:
        busy = await hold_runners(graph, batcher)
        waiting = [ask(batcher, grey) for grey in range(3)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(NotReady):
            batcher.capacity.check_open()
        graph.gate.set()
        answers = await asyncio.gather(*busy, *waiting)
        await closing

    assert len(answers) == 4


def fail_on(error: BaseException) -> Any:
    def failure(batch_NHW: Views) -> None:
        if (batch_NHW == BAD).all(axis=(1, 2)).any():
            raise error

    return failure


async def in_thread(batcher: Batcher, grey: int) -> InferenceResult | None:
    """Answer an image as a thread that has just decoded it would."""
    with batcher.inline() as inline:
        return await asyncio.to_thread(run_here, inline, views(grey)[0])


def run_here(inline: InlineRun, image_HW: NDArray[np.uint8]) -> InferenceResult | None:
    """Run one image in the calling thread; None if it must queue."""
    image = inline.take(image_HW)
    if image is None:
        return None
    (outcome,) = run_inline((image,))
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


async def test_an_image_is_answered_inline_in_the_thread_that_made_it(graph: FakeGraph) -> None:
    async with batching(graph, max_batch=1) as batcher:
        answer = await in_thread(batcher, 51)

    assert answer is not None
    np.testing.assert_allclose(answer.outputs.logit_N, [0.2], atol=1e-6)


async def test_images_that_may_go_together_wait_for_a_runner_and_one_alone_does_not(
    graph: FakeGraph,
) -> None:
    async with batching(graph, max_batch=4) as batcher:
        with admitted(batcher):
            assert await in_thread(batcher, 51) is not None
            with admitted(batcher):
                assert await in_thread(batcher, 51) is None

    assert graph.batch_sizes == [1]


async def test_no_more_images_run_at_once_than_there_are_run_slots(graph: FakeGraph) -> None:
    async with batching(graph, max_batch=1) as batcher:
        graph.gate.clear()
        first = asyncio.create_task(in_thread(batcher, 1))
        await until(lambda: len(graph.batch_sizes) == 1)
        assert await in_thread(batcher, 2) is None
        waits = ask(batcher, 3)
        await asyncio.sleep(0.05)
        assert len(graph.batch_sizes) == 1
        graph.gate.set()

        assert await first is not None
        np.testing.assert_allclose((await waits).outputs.logit_N * 255, [3], atol=1e-4)


async def test_an_image_does_not_overtake_those_that_wait_for_a_runner(graph: FakeGraph) -> None:
    async with batching(graph, max_batch=1) as batcher:
        waits = ask(batcher, 1)
        await asyncio.sleep(0)  # it queues now, and the runner has not come to it yet
        with batcher.inline() as inline:
            assert inline.take(views(2)[0]) is None
        await waits


async def test_what_is_known_beside_each_image_goes_with_it_through_a_batch(
    graph: FakeGraph,
) -> None:
    async with batching(graph, max_batch=8) as batcher:
        busy = await hold_runners(graph, batcher)
        asked = [
            asyncio.create_task(
                batcher.run(
                    views(0),
                    start_by=time.monotonic() + 20,
                    metadata_M=np.array([fact, 0.0], np.float32),
                )
            )
            for fact in (1.0, 2.0, 3.0)
        ]
        await asyncio.sleep(0.02)
        graph.gate.set()
        answers = await asyncio.gather(*asked)
        await asyncio.gather(*busy)

    assert graph.batch_sizes == [1, 3]
    assert [float(answer.outputs.logit_N[0]) for answer in answers] == [1.0, 2.0, 3.0]


async def test_a_runner_that_waits_for_a_thread_drops_what_was_given_up_meanwhile(
    graph: FakeGraph,
) -> None:
    async with batching(graph, max_batch=1) as batcher:
        graph.gate.clear()
        first = asyncio.create_task(in_thread(batcher, 1))
        await until(lambda: len(graph.batch_sizes) == 1)
        leaver = ask(batcher, 2)
        await asyncio.sleep(0.02)
        leaver.cancel()
        graph.gate.set()
        await first
        await ask(batcher, 3)

    assert len(graph.batch_sizes) == 2


async def test_an_image_that_fails_inline_fails_alone_and_a_worse_error_stops_the_model(
    graph: FakeGraph,
) -> None:
    class Fatal(BaseException):
        pass

    def fail(batch_NHW: Views) -> None:
        raise GraphError("bad") if batch_NHW[0, 0, 0] == BAD else Fatal

    graph.failure = fail
    async with batching(graph, max_batch=1) as batcher:
        with pytest.raises(InferenceFailed):
            await in_thread(batcher, BAD)
        assert batcher.fault is None
        with pytest.raises(InferenceFailed):
            await in_thread(batcher, 0)
        await until(lambda: batcher.fault)
        assert await in_thread(batcher, BAD) is None


async def together(batcher: Batcher, *greys: int) -> list[InferenceResult | InferenceFailed | None]:
    """Run images as a thread that has decoded them one after the other would."""
    with ExitStack() as stack:
        images: list[InlineImage] = []
        for grey in greys:
            image = stack.enter_context(batcher.inline()).take(views(grey)[0])
            assert image is not None
            images.append(image)
        return await asyncio.to_thread(run_inline, images)


async def test_two_images_of_one_thread_share_a_run_and_each_gets_its_own_outputs(
    graph: FakeGraph,
) -> None:
    async with batching(graph, max_batch=2) as batcher:
        answers = await together(batcher, 51, 102)

    assert graph.batch_sizes == [2]
    for answer, logit in zip(answers, (0.2, 0.4), strict=True):
        assert isinstance(answer, InferenceResult)
        np.testing.assert_allclose(answer.outputs.logit_N, [logit], atol=1e-6)


async def test_of_two_images_that_share_a_run_only_the_bad_one_fails(graph: FakeGraph) -> None:
    graph.failure = fail_on(GraphError("bad"))
    async with batching(graph, max_batch=2) as batcher:
        bad, good = await together(batcher, BAD, 51)

    assert isinstance(bad, InferenceFailed)
    assert isinstance(good, InferenceResult)
    assert graph.batch_sizes == [2, 1, 1]


async def test_an_image_that_fails_alone_is_run_once(graph: FakeGraph) -> None:
    graph.failure = fail_on(GraphError("bad"))
    async with batching(graph) as batcher:
        with pytest.raises(InferenceFailed):
            await ask(batcher, BAD)

    assert graph.batch_sizes == [1]


async def test_images_of_two_models_never_share_a_run(graph: FakeGraph) -> None:
    async with batching(graph, max_batch=2) as one, batching(graph, max_batch=2) as other:
        with one.inline() as first, other.inline() as second:
            images = (first.take(views(1)[0]), second.take(views(2)[0]))
            assert images[0] is not None
            assert images[1] is not None
            await asyncio.to_thread(run_inline, (images[0], images[1]))

    assert graph.batch_sizes == [1, 1]
