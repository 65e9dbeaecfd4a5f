"""How batches of one graph are run, and the file in which that is kept for the next start."""

import hashlib
import json
import logging
import os
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import onnxruntime as ort

from cxr.bundle import Bundle
from cxr.graph import Runtime
from cxr.regular_file import read_regular_file

logger = logging.getLogger("cxr.engine")

_RULE = 2
"""Counts up if another plan would be chosen by the same measurement."""

_MAX_FILE_BYTES = 64 * 1024
_MAX_BATCH = 64
_MAX_RUN_S = 60.0
"""Limits of a plan that is read from a file: its size, the images and the seconds of a run."""


@dataclass(frozen=True, slots=True)
class ExecutionPlan:
    """How batches of one graph are run, and what a run takes."""

    run_slots: int
    """Batches that run at once."""
    threads: int
    """Threads of one run on the CPU."""
    max_batch: int
    seconds_per_image: float
    seconds_per_run: float = 0.0
    """What a run takes besides its images."""
    source: Literal["measured", "remembered"] = "measured"


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the settings decide; 0 leaves it to measuring."""

    run_slots: int = 0
    threads: int = 0
    max_batch: int = 0


@dataclass(frozen=True, slots=True)
class PlanCache:
    """The plans of earlier starts, in a folder that need not be writable."""

    runtime: Runtime
    cores: int
    overrides: Overrides

    def recall(self, bundle: Bundle) -> ExecutionPlan | None:
        """Return the plan that an earlier start made for the same graph on the same machine."""
        path = self._path_of(bundle)
        if path is None or not path.exists():
            return None
        try:
            kept = json.loads(read_regular_file(path, max_bytes=_MAX_FILE_BYTES))
            plan = ExecutionPlan(**(kept | {"source": "remembered"}))
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        return plan if self._is_plausible(plan) else None

    def _is_plausible(self, plan: ExecutionPlan) -> bool:
        """Return whether a plan could have been measured here; its file may be anybody's."""
        most = max(8, 2 * self.cores)
        counts = (
            (plan.run_slots, max(most, self.overrides.run_slots)),
            (plan.threads, max(most, self.overrides.threads)),
            (plan.max_batch, _MAX_BATCH),
        )
        seconds = (plan.seconds_per_image, plan.seconds_per_run)
        return all(type(count) is int and 1 <= count <= limit for count, limit in counts) and all(
            type(value) in (int, float) and abs(value) <= _MAX_RUN_S for value in seconds
        )

    def keep(self, bundle: Bundle, plan: ExecutionPlan) -> None:
        """Keep a plan for the next start if the folder is writable; whole or not at all."""
        path = self._path_of(bundle)
        if path is None:
            return
        draft = path.with_suffix(f".{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(asdict(plan)), encoding="utf-8")
            draft.replace(path)
        except OSError:
            logger.info("the plan can't be kept; the next start measures again")

    def _path_of(self, bundle: Bundle) -> Path | None:
        """Name the file of a plan by everything that it depends on."""
        runtime = self.runtime
        if runtime.cache_dir is None:
            return None
        facts = (
            _RULE,
            bundle.sha256,
            runtime.name,
            runtime.precision,
            processor(),
            self.cores,
            ort.__version__,
            self.overrides.run_slots,
            self.overrides.threads,
            self.overrides.max_batch,
        )
        digest = hashlib.sha256(repr(facts).encode()).hexdigest()
        return runtime.cache_dir / "plans" / f"{digest[:32]}.json"


def processor() -> str:
    """Name the processor's model, by the kernel's list if there is one."""
    with suppress(OSError):
        for line in (
            Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        ):
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
