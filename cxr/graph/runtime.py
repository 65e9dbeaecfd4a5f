"""How and where a graph is to be run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Literal

Device = Literal["cpu", "gpu"]
Engine = Literal["onnxruntime", "openvino"]
Precision = Literal["exact", "fast"]
"""`exact` is fp32, the same answer everywhere; `fast` is what a bundle allows because it was
measured."""


class Cancellation:
    """Lets another thread stop the opening of a graph, and its runs while it is opened."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._stops: list[Callable[[], None]] = []
        self.reason = ""
        """Why the opening was stopped; empty if it was not."""

    @property
    def is_cancelled(self) -> bool:
        """Whether the opening was stopped."""
        return bool(self.reason)

    def cancel(self, reason: str) -> None:
        """Stop the opening."""
        with self._lock:
            self.reason = reason
            stops = list(self._stops)
        for stop in stops:
            stop()

    def end(self) -> None:
        """Forget what could be stopped: it would keep the graph in memory after its use."""
        with self._lock:
            self._stops.clear()

    def on_cancel(self, stop: Callable[[], None]) -> None:
        """Call a function when the opening is stopped; at once if it was stopped already."""
        with self._lock:
            self._stops.append(stop)
            is_late = self.is_cancelled
        if is_late:
            stop()


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a graph is opened with."""

    engine: Engine = "onnxruntime"
    device: Device = "cpu"
    precision: Precision = "exact"
    run_slots: int = 1
    """Runs at once."""
    threads: int = 1
    """Threads of one run on the CPU."""
    buckets: tuple[int, ...] = ()
    """Sizes, in rising order, up to which batches are filled; a batch that fits none of them runs
    as it is."""
    gpu_memory_bytes: int = 4 * 2**30
    cache_dir: Path | None = None
    """Folder in which an engine may keep a compiled graph, under a name with the graph's hash."""

    cancellation: Cancellation | None = None
    """Stops the opening of the graph."""

    @property
    def name(self) -> str:
        """The engine's name in answers and in golden.npz, as in "onnxruntime-cpu"."""
        return f"{self.engine}-{self.device}"

    def fill(self, num_images: int) -> int:
        """Return the size that a batch is run at."""
        return next((bucket for bucket in self.buckets if bucket >= num_images), num_images)
