import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.cpu import cgroup_quota, step_back, usable_cores


def groups(folder: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    """Lay out control groups as Linux mounts them."""
    for name, text in files.items():
        path = folder / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "own").write_text(own)
    return folder / "cgroup", folder / "own"


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/pod/app\n", {"pod/cpu.max": "200000 100000\n", "pod/app/cpu.max": "max 100000\n"},
        2.0),
        ("0::/pod/app\n", {"pod/cpu.max": "200000 100000\n", "pod/app/cpu.max": "50000 100000\n"},
        0.5),
        ("0::/gone\n", {"cpu.max": "300000 100000\n"}, 3.0),
        ("4:cpu,cpuacct:/a\n2:memory:/a\n", {"cpu/a/cpu.cfs_quota_us": "400000",
        "cpu/a/cpu.cfs_period_us": "100000"}, 4.0),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
    ],
)  # fmt: skip
def test_the_smallest_quota_of_a_group_and_its_parents_counts(
    tmp_path: Path, own: str, files: dict[str, str], cores: float | None
) -> None:
    assert cgroup_quota(*groups(tmp_path, own, files)) == cores


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path / "cgroup", tmp_path / "own") is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_cores_that_the_scheduler_withholds_are_not_counted() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_a_thread_steps_back_alone() -> None:
    before = os.nice(0)
    with ThreadPoolExecutor(1, initializer=step_back, initargs=(3,)) as threads:
        assert threads.submit(os.nice, 0).result() == min(19, before + 3)

    assert os.nice(0) == before
