"""How a graph is run on this machine: what was chosen, and what a run takes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """How batches of one graph are run."""

    lanes: int
    """Batches that run at once."""
    threads: int
    """Threads of one run on the CPU."""
    max_batch: int
    seconds_per_image: float
    seconds_per_run: float = 0.0
    """What a run takes besides its images."""
