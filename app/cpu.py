"""The cores that this process may use: how many, and which of its threads goes first on them.

Their number is what the scheduler allows and what a container's quota pays for.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")

COMPUTE_NICENESS = 5
"""Of threads that decode and run graphs: when the event loop has something to do, it does not wait
for one of them to be through with its slice of a core. It never has much to do."""


def usable_cores() -> int:
    """Count the cores that may be kept busy, at least one; half a core that a quota leaves is not
    counted.
    """
    affinity = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quota = cgroup_quota(_CGROUPS, _OWN_CGROUP)
    return affinity if quota is None else max(1, min(affinity, int(quota)))


def step_back(niceness: int) -> None:
    """Let this process's other threads go before the calling one; only Linux knows a priority of
    one thread.

    Args:
        niceness: steps down from the priority that the thread has; each leaves a fifth less of a
            contended core.
    """
    if sys.platform == "linux":
        os.nice(niceness)


def cgroup_quota(root: Path, own: Path) -> float | None:
    """Return the cores that the control groups' quotas allow, the smallest of the group's and its
    parents'.

    Reads version 2 (`cpu.max`) and version 1 (`cpu.cfs_quota_us`); None if there is no quota.

    Args:
        root: where the control groups are mounted, as `/sys/fs/cgroup`.
        own: the list of the process's own groups, as `/proc/self/cgroup`.
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
