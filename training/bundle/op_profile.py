"""Time of a graph by operator, to find work that is not convolutions or matrix products.

ONNX Runtime's own profiler measures each node, on one thread and one image.
"""

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

_RUNS = 20
_WARM_UP_RUNS = 3

_MAX_SHARE = 0.05
"""Share of the time from which another operator is warned of."""

_WANTED = ("Conv", "MatMul", "Gemm")
"""Operators whose name contains one of these do the network's own work."""


@dataclass(frozen=True, slots=True)
class OpTime:
    """Time of all nodes of one operator."""

    operator: str
    ms_per_image: float
    share: float
    """Of the time of all nodes."""

    @property
    def is_excessive(self) -> bool:
        """Whether it is no convolution or matrix product, and takes too large a share."""
        is_wanted = any(name in self.operator for name in _WANTED)
        return not is_wanted and self.share > _MAX_SHARE


def profile(graph: Path, size: int, metadata_columns: int = 0) -> list[OpTime]:
    """Measure a graph by operator, the slowest first."""
    inputs: dict[str, object] = {"image": np.zeros((1, size, size), dtype=np.uint8)}
    if metadata_columns:
        inputs["metadata"] = np.zeros((1, metadata_columns), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        for _ in range(_WARM_UP_RUNS + _RUNS):
            session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    micros: defaultdict[str, float] = defaultdict(float)
    for node_times in _times_by_node(events).values():
        operator, durations = node_times
        micros[operator] += sum(durations[_WARM_UP_RUNS:])
    total = sum(micros.values())
    times = [
        OpTime(operator, spent / 1000 / _RUNS, spent / total) for operator, spent in micros.items()
    ]
    return sorted(times, key=lambda time: -time.ms_per_image)


def profile_lines(times: list[OpTime]) -> Iterator[str]:
    """Return the times as lines for the console, with a warning for each excessive operator."""
    total = sum(time.ms_per_image for time in times)
    shown = ", ".join(f"{time.operator} {time.share:.1%}" for time in times if time.share >= 0.01)
    yield f"time by operator, one thread, {total:.1f} ms an image: {shown}"
    for time in times:
        if time.is_excessive:
            yield (
                f"WARNING: {time.operator} takes {time.share:.1%} of the time; only convolutions "
                f"and matrix products should take over {_MAX_SHARE:.0%}"
            )


def _times_by_node(events: list[dict[str, object]]) -> dict[str, tuple[str, list[float]]]:
    """Return operator and durations in microseconds of each node, in the order of the runs."""
    found: dict[str, tuple[str, list[float]]] = {}
    for event in events:
        arguments = event.get("args")
        if event.get("cat") != "Node" or not isinstance(arguments, dict):
            continue
        name = str(event["name"])
        if name.endswith("_kernel_time"):
            operator = str(arguments["op_name"])
            found.setdefault(name, (operator, []))[1].append(float(str(event["dur"])))
    return found
