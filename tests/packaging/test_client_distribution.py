"""The client installs alone: a fresh environment with its wheel and what the wheel requires."""

import shutil
import subprocess
import sys
import venv
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.server import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's wheel, built from cxr_client/ by the setuptools of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a build leaves files beside its source
    shutil.copytree(ROOT / "cxr_client", source, ignore=shutil.ignore_patterns("__pycache__"))
    run_pip("wheel", source, "--no-build-isolation", "--wheel-dir", folder)
    (built,) = folder.glob("cxr_client-*.whl")
    return built


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment that holds the client and its requirements, and nothing else."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=False, symlinks=True)
    run_pip("--python", folder / "bin/python", "install", "--no-index", wheel)
    (packages,) = folder.glob("lib/python*/site-packages")
    installed = next(iter(Distribution.discover(name="cxr-client", path=[str(packages)])))
    link_requirements(installed, packages, done=set())
    return folder


def run_pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    subprocess.run([*command, "--no-deps"], check=True, capture_output=True)


def link_requirements(of: Distribution, packages: Path, done: set[str]) -> None:
    """Link what a distribution requires from this environment, so that no network is needed."""
    for requirement in map(Requirement, of.requires or []):
        if requirement.name in done or not applies(requirement):
            continue
        done.add(requirement.name)
        try:
            found = distribution(requirement.name)
        except PackageNotFoundError:
            continue
        for top in {file.parts[0] for file in found.files or [] if ".." not in file.parts}:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(str(found.locate_file(top))))
        link_requirements(found, packages, done)


def applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def test_the_command_teaches_its_use(fresh: Path) -> None:
    done = subprocess.run(
        [fresh / "bin/cxr-serve", "predict", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=fresh,
    )
    assert "--csv" in done.stdout


def test_the_client_answers_without_the_service_and_is_typed(fresh: Path) -> None:
    script = (
        "import importlib.resources as r, importlib.util as u, cxr_client;"
        "print(u.find_spec('fastapi'), u.find_spec('numpy'),"
        " r.files(cxr_client).joinpath('py.typed').is_file())"
    )
    done = subprocess.run(
        [fresh / "bin/python", "-c", script], capture_output=True, text=True, check=True, cwd=fresh
    )
    assert done.stdout.split() == ["None", "None", "True"]
