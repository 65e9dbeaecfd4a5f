"""What the documents say is what the code has."""

import re
from pathlib import Path

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
