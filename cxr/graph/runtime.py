"""How and where a graph is to be run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Device = Literal["cpu", "gpu"]
Engine = Literal["onnxruntime", "openvino", "tensorrt"]
Precision = Literal["exact", "fast"]
"""`exact` is fp32, the same answer everywhere; `fast` is what a bundle allows because it was
measured."""


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

    @property
    def name(self) -> str:
        """The engine's name in answers and in golden.npz, as in "onnxruntime-cpu"."""
        return f"{self.engine}-{self.device}"

    def fill(self, num_images: int) -> int:
        """Return the size that a batch is run at."""
        return next((bucket for bucket in self.buckets if bucket >= num_images), num_images)
