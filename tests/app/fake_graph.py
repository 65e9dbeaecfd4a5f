"""The one seam of the system: a graph whose latency and failure a test sets."""

import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cxr.bundle import Bundle
from cxr.graph import Runtime
from cxr.interpret import Outputs

CELLS = 4


class FakeGraph:
    """Answers each image with its mean grey level, and what is known beside it added, as late and
    as badly as it is told.

    While `gate` is closed, runs wait at it.  `failure` looks at each batch and may
    raise.  `offset` is added to every logit.
    """

    engine = "fake"
    precision = "fp32"
    num_facts = 0

    def __init__(
        self,
        *,
        latency_s: float = 0.0,
        failure: Callable[[NDArray[np.uint8]], None] = lambda batch_NHW: None,
    ) -> None:
        self.latency_s = latency_s
        self.failure = failure
        self.offset = 0.0
        self.gate = threading.Event()
        self.gate.set()
        self.batch_sizes: list[int] = []
        self.drew_maps: list[bool] = []
        """Whether each run drew the maps."""

    def run(
        self,
        batch_NHW: NDArray[np.uint8],
        metadata_NM: NDArray[np.float32] | None = None,
        *,
        with_map: bool = True,
    ) -> Outputs:
        """Answer a batch, uint8 [N, H, W]."""
        self.batch_sizes.append(len(batch_NHW))
        self.drew_maps.append(with_map)
        self.gate.wait(120)
        time.sleep(self.latency_s)
        self.failure(batch_NHW)
        logit_N = batch_NHW.mean(axis=(1, 2), dtype=np.float32) / 255 + np.float32(self.offset)
        logit_N = logit_N if metadata_NM is None else logit_N + metadata_NM.sum(axis=1)
        cam_Nhw = np.broadcast_to(logit_N[:, None, None], (len(batch_NHW), CELLS, CELLS)).astype(
            np.float32
        )
        outputs = Outputs(logit_N, cam_Nhw, np.zeros(len(batch_NHW), np.float32))
        return outputs if with_map else outputs.without_map()

    def open(self, bundle: Bundle, runtime: Runtime) -> "FakeGraph":
        """Stand in for `cxr.graph.open_graph`."""
        return self
