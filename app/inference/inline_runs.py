"""Runs in the thread that decoded the images: no other thread need be woken, and the images still
lie in the caches of its core.

Shape suffixes: N images, H and W rows and columns, M columns of metadata.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from app.errors import InferenceFailed
from app.inference.graph_runner import STOPPED, GraphRunner
from app.inference.pending_request import InferenceResult
from app.inference.run_slots import WaitingImage
from cxr.errors import GraphError

logger = logging.getLogger("cxr.batcher")

MOST_INLINE = 2
"""Most images of one inline run. Three take no less of the processor than two (bench/LIMITS.md),
and the first would wait longer."""


@dataclass(eq=False, slots=True)
class InlineImage:
    """An image that is to run in the thread that decoded it, alone or with others."""

    runner: GraphRunner
    waiting: WaitingImage
    image_HW: NDArray[np.uint8]
    metadata_M: NDArray[np.float32] | None
    with_map: bool
    since: float = field(default_factory=time.monotonic)

    @property
    def most_together(self) -> int:
        """Images that one run is worth."""
        return min(MOST_INLINE, self.runner.max_batch)

    def joins(self, other: "InlineImage") -> bool:
        """Tell whether one run can answer both."""
        return self.runner is other.runner and self.with_map == other.with_map


class InlineRun:
    """The run of one image, beside the queue of its model."""

    def __init__(
        self, runner: GraphRunner, waiting: WaitingImage, must_queue: Callable[[], bool]
    ) -> None:
        self._runner = runner
        self._waiting = waiting
        self._must_queue = must_queue

    def take(
        self,
        image_HW: NDArray[np.uint8],
        metadata_M: NDArray[np.float32] | None = None,
        *,
        with_map: bool = True,
    ) -> InlineImage | None:
        """Take an image of the graph's input size, in any thread.

        Returns:
            None if the image must queue: a run takes several cores, others wait, or other images
            would make a large batch with this one.
        """
        if not self._runner.runs_on_one_core or self._must_queue():
            return None
        return InlineImage(self._runner, self._waiting, image_HW, metadata_M, with_map)


def run_inline(
    images: Sequence[InlineImage], *, slot_wait_s: float = 0.0
) -> list[InferenceResult | InferenceFailed | None]:
    """Run images of the same graph together, and others alone, in the calling thread.

    Returns:
        What each image comes to: None, and it was not run, if no run slot was free for so long.
    """
    if not images:
        return []
    first, *others = images
    if not all(first.joins(other) for other in others):
        return [
            outcome for image in images for outcome in run_inline((image,), slot_wait_s=slot_wait_s)
        ]
    if not first.runner.run_slots.try_acquire(slot_wait_s):
        return [None for _ in images]
    try:
        return list(_run(first.runner, images))
    finally:
        first.runner.run_slots.release()


def _run(
    runner: GraphRunner, images: Sequence[InlineImage]
) -> Iterator[InferenceResult | InferenceFailed]:
    """Run a batch. If it fails, run its images singly, so that only the bad one fails."""
    for image in images:
        image.waiting.end()
    started = time.monotonic()
    try:
        done = runner.run(*_batch(images), with_map=images[0].with_map)
    except GraphError as exc:
        if len(images) > 1:
            for image in images:
                yield from _run(runner, (image,))
            return
        logger.exception("the graph failed on an image")
        yield _caused(InferenceFailed("The model could not answer for this image."), exc)
    except BaseException as exc:  # the model's runs end, and its waiters hear of it
        runner.stop_from_thread(exc)
        for _ in images:
            yield _caused(InferenceFailed(STOPPED), exc)
    else:
        for image, row in zip(images, done.rows, strict=True):
            yield InferenceResult(row, started - image.since, done.seconds)


def _batch(
    images: Sequence[InlineImage],
) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """Return images and metadata features as the graph reads them."""
    known = [image.metadata_M for image in images if image.metadata_M is not None]
    metadata_NM = np.stack(known) if known else None  # of one graph: all have them, or none
    return np.stack([image.image_HW for image in images]), metadata_NM


def _caused(error: InferenceFailed, cause: BaseException) -> InferenceFailed:
    error.__cause__ = cause
    return error


@contextmanager
def inline_run(runner: GraphRunner, must_queue: Callable[[], bool]) -> Iterator[InlineRun]:
    """Return the inline run of one image, which counts as waiting until it runs or the block
    ends.
    """
    with WaitingImage(runner.metrics.queue_depth) as waiting:
        yield InlineRun(runner, waiting, must_queue)
