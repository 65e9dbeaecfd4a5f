"""Write the lock files from what is installed: exact versions of everything that each extra needs.

The files install anywhere: no local versions (torch's CPU builds have one), no packages that only
one platform's builds ask for. Files without torch state the hashes of every published build, so pip
installs nothing else. torch may come from another index, whose builds have other hashes.
"""

import re
import subprocess
import sys
import tempfile
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
    "serve-otel.txt": ("cpu", "otel"),
    "gateway.txt": ("pacs",),
    "bulk.txt": ("cpu", "ray"),
    "test.txt": ("openvino", "otel", "pacs", "ray", "train", "docs", "dev"),
}
BENCH_LOCKS = {"bench.txt": ("cpu", "bench")}
"""Written from an environment of its own, for the peers would move what the service is pinned
to."""
HASHED = (
    "serve-cpu.txt",
    "serve-openvino.txt",
    "serve-gpu.txt",
    "serve-otel.txt",
    "gateway.txt",
    "bulk.txt",
)
"""Lock files whose packages are installed by their hashes alone."""

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


def with_hashes(pins: list[str], *, is_gpu: bool) -> str:
    """Return pins with the hashes of all their published files, as uv reads them from the index.

    The GPU's libraries are pinned too: they have builds for Linux alone.
    """
    platform = ["--python-platform", "x86_64-manylinux_2_28"] if is_gpu else ["--no-deps"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(pins))
        file.flush()
        command = [sys.executable, "-m", "uv", "pip", "compile", "-q", "--generate-hashes"]
        command += ["--no-annotate", "--no-header", "--python-version", "3.11", *platform]
        command += [] if is_gpu else ["--universal"]
        done = subprocess.run(  # noqa: S603 -- our own command
            [*command, file.name], check=True, stdout=subprocess.PIPE, text=True
        )
    return done.stdout


def main() -> None:
    """Write every lock file, or with `bench` the one of the environment that holds the peers."""
    for file, extras in (BENCH_LOCKS if sys.argv[1:] == ["bench"] else LOCKS).items():
        found: dict[str, str] = {}
        needed(project_requirements(extras), (), found)
        pins = [f"{name}=={version}" for name, version in found.items()] + [GPU_RUNTIME] * (
            "gpu" in extras
        )
        text = (
            with_hashes(sorted(pins), is_gpu="gpu" in extras)
            if file in HASHED
            else "\n".join(sorted(pins)) + "\n"
        )
        (HERE / file).write_text("# Made by `make lock` from pyproject.toml.\n" + text)


if __name__ == "__main__":
    main()
