"""A request that waits in a queue: one upload's views, and the outputs that come back for them.

Shape suffixes: N images of a batch, K views of one upload, H and W rows and columns, M columns of
metadata.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cxr.errors import GraphError
from cxr.graph import Graph
from cxr.interpret import Outputs


@dataclass(frozen=True, slots=True)
class InferenceResult:
    """The outputs of one upload's views in order, and where the time went."""

    outputs: Outputs
    queue_s: float
    run_s: float


@dataclass(eq=False, repr=False, slots=True)
class PendingRequest:
    """One upload's views on their way through the queue."""

    views_KHW: NDArray[np.uint8]
    start_by: float
    answer: asyncio.Future[InferenceResult]
    enqueued: float
    metadata_M: NDArray[np.float32] | None = None
    """The metadata features, for graphs that read them."""
    with_map: bool = True
    """Whether the maps are wanted. A batch has them if one of its requests wants them."""
    taken: int = 0
    first_run: float = 0.0
    rows: dict[int, Outputs] = field(default_factory=dict)

    def settle(self, index: int, row: Outputs) -> None:
        """Keep one view's outputs; the last one completes the answer."""
        self.rows[index] = row if self.with_map else row.without_map()
        if len(self.rows) == len(self.views_KHW) and not self.answer.done():
            rows = [self.rows[number] for number in range(len(self.rows))]
            self.answer.set_result(
                InferenceResult(
                    join_rows(rows),
                    self.first_run - self.enqueued,
                    time.monotonic() - self.first_run,
                )
            )

    def fail(self, error: Exception) -> None:
        """End the wait with an error, unless nobody waits any more."""
        if not self.answer.done():
            self.answer.set_exception(error)


Item = tuple[PendingRequest, int]
"""One view: its request, and its index among the request's views."""


def run_rows(
    graph: Graph,
    batch_NHW: NDArray[np.uint8],
    metadata_NM: NDArray[np.float32] | None = None,
    *,
    with_map: bool = True,
) -> list[Outputs]:
    """Run a batch and split its outputs by image; raises `GraphError` unless they are whole and
    finite.
    """
    try:
        outputs = graph.run(batch_NHW, metadata_NM, with_map=with_map)
    except GraphError:
        raise
    except Exception as exc:  # whatever a foreign graph raises fails its batch, not its runner
        raise GraphError(f"the graph raised {type(exc).__name__}") from exc
    if not outputs.is_sound(len(batch_NHW)):
        raise GraphError("the graph's outputs are not whole and finite")
    return [_row(outputs, index) for index in range(len(batch_NHW))]


def _row(outputs: Outputs, index: int) -> Outputs:
    part = slice(index, index + 1)
    return Outputs(outputs.logit_N[part], outputs.cam_Nhw[part], outputs.novelty_N[part])


def join_rows(rows: Sequence[Outputs]) -> Outputs:
    """Put the outputs of one upload's views together, in order."""
    if len(rows) == 1:
        return rows[0]
    return Outputs(
        np.concatenate([row.logit_N for row in rows]),
        np.concatenate([row.cam_Nhw for row in rows]),
        np.concatenate([row.novelty_N for row in rows]),
    )
