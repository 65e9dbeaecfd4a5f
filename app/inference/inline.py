"""Runs in the thread that decoded the image: no other thread need be woken, and the image still
lies in the caches of its core.

Shape suffixes: H and W rows and columns, M columns of metadata.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from app.errors import InferenceFailed
from app.inference.graph_runner import STOPPED, GraphRunner
from app.inference.pending_request import InferenceResult
from app.inference.run_slots import WaitingImage
from cxr.errors import GraphError

logger = logging.getLogger("cxr.batcher")


class InlineRun:
    """The run of one image, beside the queue of its model."""

    def __init__(
        self, runner: GraphRunner, waiting: WaitingImage, must_queue: Callable[[], bool]
    ) -> None:
        self._runner = runner
        self._waiting = waiting
        self._must_queue = must_queue

    def run(
        self,
        image_HW: NDArray[np.uint8],
        metadata_M: NDArray[np.float32] | None = None,
        *,
        with_map: bool = True,
    ) -> InferenceResult | None:
        """Run an image of the graph's input size, in any thread.

        Returns:
            None, and nothing was run, if the image must queue: a run takes several cores, others
            wait, no run slot is free, or other images would make a batch with this one.

        Raises:
            InferenceFailed: the graph failed on the image.
        """
        runner = self._runner
        if not runner.runs_on_one_core or self._must_queue() or not runner.run_slots.try_acquire():
            return None
        self._waiting.end()
        metadata_NM = None if metadata_M is None else metadata_M[None]
        try:
            done = runner.run(image_HW[None], metadata_NM, with_map=with_map)
        except GraphError as exc:
            logger.exception("the graph failed on an image")
            raise InferenceFailed("The model could not answer for this image.") from exc
        except BaseException as exc:
            runner.stop_from_thread(exc)
            raise InferenceFailed(STOPPED) from exc
        finally:
            runner.run_slots.release()
        return InferenceResult(done.rows[0], 0.0, done.seconds)


@contextmanager
def inline_run(runner: GraphRunner, must_queue: Callable[[], bool]) -> Iterator[InlineRun]:
    """Return the inline run of one image, which counts as waiting until it runs or the block
    ends.
    """
    with WaitingImage(runner.metrics.queue_depth) as waiting:
        yield InlineRun(runner, waiting, must_queue)
