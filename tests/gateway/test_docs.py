"""docs/pacs.md and the files for containers say what the code has."""

import re
from pathlib import Path

from gateway.failpoints import POINTS
from gateway.settings import (
    AgeRange,
    Destination,
    Http,
    NodeSettings,
    Peer,
    Rule,
    ServiceSettings,
    Tls,
    load_settings,
)
from tests.server import ROOT

PAGE = (ROOT / "docs/pacs.md").read_text()


def test_every_kill_point_stands_in_the_page_and_in_the_code() -> None:
    assert [point for point in POINTS if f"`{point}`" not in PAGE] == []
    code = "".join(path.read_text() for path in (ROOT / "gateway").glob("*.py"))
    named = set(re.findall(r'failpoint\("([a-z_.]+)"\)', code))
    assert named == {point for point in POINTS if "_commit." not in point}
    commits = {point.split(".")[1] for point in POINTS if "_commit." in point}
    assert [name for name in commits if f'"{name}"' not in code] == []


def test_every_setting_stands_in_the_page() -> None:
    missing = [
        f"{model.__name__}.{name}"
        for model in (NodeSettings, Http, Tls, ServiceSettings, Peer, Destination, AgeRange, Rule)
        for name in model.model_fields
        if not re.search(rf"\b{name}\b", PAGE)
    ]
    assert missing == []


def test_the_settings_for_containers_and_those_of_the_page_are_right() -> None:
    load_settings(ROOT / "deploy/gateway/gateway.toml")


def test_the_example_of_the_page_is_right(tmp_path: Path) -> None:
    example = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0]
    path = tmp_path / "gateway.toml"
    path.write_text(example)
    load_settings(path)
