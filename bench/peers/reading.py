"""What every peer does with an upload: our own decoding and preprocessing, the same graph, the same
options.

BENCH_GRAPH   the ONNX file
BENCH_SIZE    rows and columns of its input

Shape suffixes: N images, H and W input rows and columns.
"""

import math
import os
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from cxr.decode import DecodeLimits, decode
from cxr.preprocess import PreprocessSpec, preprocess

CONCURRENT_RUNS = 2
"""Runs at once, by threads or by processes, whichever the peer does better: one thread each."""

MAX_WAITING = 24
"""Requests in a peer that can bound them: as many as two cores answer well within half a second."""


def port() -> int:
    """Give the port to listen on."""
    return int(os.environ["BENCH_PORT"])


def open_session() -> Any:
    """Open the graph for runs on one thread that does not spin while it waits."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(
        os.environ["BENCH_GRAPH"], options, providers=["CPUExecutionProvider"]
    )


def read(data: bytes) -> NDArray[np.uint8]:
    """Make `image_NHW`, uint8 [1, size, size], from an upload."""
    spec = PreprocessSpec(size=int(os.environ["BENCH_SIZE"]))
    return preprocess(decode(data, limits=DecodeLimits(), size=spec.size), spec)[None]


def run(session: Any, image_NHW: NDArray[np.uint8]) -> float:
    """Give one image's logit; the map and the novelty are computed as in the service, and
    dropped."""
    logit_N, *_ = session.run(["logit", "cam", "novelty"], {"image": image_NHW})
    return float(logit_N[0])


def answer(logit: float) -> dict[str, float]:
    """Write the answer."""
    return {"probability": 1 / (1 + math.exp(-logit))}
