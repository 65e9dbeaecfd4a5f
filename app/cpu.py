"""Count the cores that this process may use, and set the priority of its threads.

The scheduler and a container's quota limit the number of cores.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")

COMPUTE_NICENESS = 1
"""Of threads that decode and run graphs, so that the event loop need not wait for them.

One step is enough for that. Five left them a third of a core beside any busy neighbour of the usual
priority, and refusals went before answers.
"""

PICTURE_NICENESS = 5
"""Of the thread that draws previews, of which one may take as long as fifty answers."""


def usable_cores() -> int:
    """Return the number of cores that may be kept busy, at least one.

    A quota of 2.5 cores counts as two.
    """
    affinity = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quota = cgroup_quota(_CGROUPS, _OWN_CGROUP)
    return affinity if quota is None else max(1, min(affinity, int(quota)))


def step_back(niceness: int) -> None:
    """Lower the priority of the calling thread. Only Linux has a priority for one thread.

    Args:
        niceness: steps to add. Each step leaves a fifth less of a contended core.
    """
    if sys.platform == "linux":
        os.nice(niceness)


def cgroup_quota(root: Path, own: Path) -> float | None:
    """Return the cores that the control groups allow, or None if there is no quota.

    The smallest quota of the group and its parents counts. Version 2 (`cpu.max`) and version 1
    (`cpu.cfs_quota_us`) are read.

    Args:
        root: mount point of the control groups, as `/sys/fs/cgroup`.
        own: file that lists the process's own groups, as `/proc/self/cgroup`.
    """
    return min(
        (quota for folder in _folders(root, own) if (quota := _quota(folder)) is not None),
        default=None,
    )


def _folders(root: Path, own: Path) -> Iterator[Path]:
    """Return the folders of the process's CPU group and of all its parents."""
    try:
        lines = own.read_text(encoding="ascii").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "cpu" if controllers else root
        group = mount / path.strip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(mount))


def _quota(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text(encoding="ascii").strip()
                for name in ("quota", "period")
            )
        return None if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError):
        return None
