"""One version in every file that states it."""

import re
import tomllib

import pytest
import yaml

from tests.server import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_the_client_has_the_version_of_the_project() -> None:
    client = tomllib.loads((ROOT / "cxr_client/pyproject.toml").read_text())
    assert client["project"]["version"] == VERSION


def test_the_citation_names_the_version_and_the_licence_of_the_project() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (VERSION, "Apache-2.0")


@pytest.mark.parametrize(
    ("file", "line"),
    [("Dockerfile", rf"^ARG VERSION={VERSION}$"), ("CHANGELOG.md", rf"^## {VERSION}\b")],
)
def test_a_file_states_the_version(file: str, line: str) -> None:
    assert re.search(line, (ROOT / file).read_text(), re.MULTILINE)
