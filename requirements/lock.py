"""Write the lock files from what is installed: exact versions of everything that each extra needs.

The files install anywhere: no hashes, no local versions (torch's CPU builds have
one), no packages that only one platform's builds ask for.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
LOCKS = {
    "serve-cpu.txt": ("cpu",),
    "serve-openvino.txt": ("openvino",),
    "serve-gpu.txt": ("gpu",),
    "train.txt": ("cpu", "train"),
    "gateway.txt": ("pacs",),
    "bulk.txt": ("cpu", "ray"),
    "test.txt": ("openvino", "pacs", "ray", "train", "docs", "dev"),
}
BENCH_LOCKS = {"bench.txt": ("cpu", "bench")}
"""Written from an environment of its own, for the peers would move what the service is pinned
to."""
PLATFORM_ONLY = re.compile(r"^(nvidia-|cuda-|triton$)")
GPU_RUNTIME = "onnxruntime-gpu[cuda,cudnn]==1.31.1"
"""Pinned by hand: it can't be installed beside onnxruntime, and brings the CUDA libraries
itself."""


def needed(names: Iterator[Requirement], extras: tuple[str, ...], found: dict[str, str]) -> None:
    """Collect the installed version of each requirement and of all that it requires."""
    for requirement in names:
        name = canonicalize_name(requirement.name)
        wanted = (
            any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras))
            if requirement.marker
            else True
        )
        if not wanted or name in found or PLATFORM_ONLY.match(name) or name == "onnxruntime-gpu":
            continue
        try:
            version = distribution(name).version
        except PackageNotFoundError:
            continue
        found[name] = version.split("+")[0]
        needed(map(Requirement, requires(name) or []), tuple(requirement.extras), found)


def project_requirements(extras: tuple[str, ...]) -> Iterator[Requirement]:
    """Read the project's own requirements, and those of some of its extras, from pyproject.toml."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    yield from map(Requirement, project["dependencies"])
    for extra in extras:
        yield from map(Requirement, project["optional-dependencies"][extra])


def main() -> None:
    """Write every lock file, or with `bench` the one of the environment that holds the peers."""
    for file, extras in (BENCH_LOCKS if sys.argv[1:] == ["bench"] else LOCKS).items():
        found: dict[str, str] = {}
        needed(project_requirements(extras), (), found)
        pins = [f"{name}=={version}" for name, version in found.items()] + [GPU_RUNTIME] * (
            "gpu" in extras
        )
        (HERE / file).write_text(
            "# Made by `make lock` from pyproject.toml.\n" + "\n".join(sorted(pins)) + "\n"
        )


if __name__ == "__main__":
    main()
