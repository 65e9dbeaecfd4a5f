"""What the documents say is what the code has."""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from app.api.problems import CODES
from app.settings import Settings, variable_names
from docs.file_listing import PAGE, file_listing
from tests.server import ROOT

DOCS = ROOT / "docs"


def test_every_setting_stands_in_the_settings_page_with_its_description() -> None:
    page = (DOCS / "settings.md").read_text()
    rows = dict(re.findall(r"^\| `(CXR_\w+)` \|.*\| ([^|]+) \|$", page, re.MULTILINE))
    assert rows == {
        variable: Settings.model_fields[name].description
        for variable, name in variable_names().items()
    }


def test_every_problem_code_stands_in_the_errors_page() -> None:
    documented = set(
        re.findall(
            r"`([a-z_]+)`",
            "".join(re.findall(r"^\| (`[^|]+) \|", (DOCS / "errors.md").read_text(), re.MULTILINE)),
        )
    )
    assert documented == set(CODES)


def test_the_list_of_files_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == file_listing(), "run: python docs/file_listing.py"


def test_every_page_stands_in_the_navigation_of_the_site() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert pages == set(named_pages(config["nav"])), "add the page to nav in mkdocs.yml"


def named_pages(nav: object) -> Iterator[str]:
    """All files that a part of the navigation names."""
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict | list):
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from named_pages(part)


def test_every_source_file_that_a_page_names_exists() -> None:
    named = re.compile(r"`((?:app|bulk|cxr|cxr_client|gateway|tests|training)/[\w/]+(?:\.\w+)?)`")
    pages = [path for path in DOCS.rglob("*.md") if path != PAGE]
    missing = [
        f"{page.name}: {path}"
        for page in [*pages, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
        for path in named.findall(read(page))
        if not any((ROOT / f"{path}{ending}").exists() for ending in ("", ".py"))
    ]
    assert missing == []


def test_no_document_or_source_names_a_place_of_its_maker() -> None:
    private = re.compile(r"/(work|root|tmp|home)/")
    named = [
        path.relative_to(ROOT).as_posix()
        for folder in ("cxr", "app", "training", "docs", "model_store")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in {".py", ".md", ".json", ".js", ".html", ".css", ".pbtxt", ".csv"}
        and private.search(read(path))
    ]
    assert named == []


def read(path: Path) -> str:
    """A text file's content."""
    return path.read_text(encoding="utf-8")
