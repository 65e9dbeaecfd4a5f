"""Bring the files that a page links outside docs/ into the site.

MkDocs knows the files of docs/ only. In the repository a page may link `../training/LOG.md`;
in the site the same link leads to a copy under `repository/`. A link to a file that does not
exist stays as it is, and MkDocs warns.
"""

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
COPIES = "repository"
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|[#/])(?P<target>[^)#\s]+)")
_SHOWN = {".md", ".svg", ".png", ".jpg", ".ipynb"}
"""Endings that a site can show; every other file becomes a text file."""


def on_files(files: Files, /, *, config: MkDocsConfig) -> Files:
    """Add the outside files that the pages link, and those that these link in turn."""
    pages = [DOCS / file.src_uri for file in files if file.is_documentation_page()]
    for path in sorted(_all_linked(pages)):
        file = File.generated(
            config, _place(path), abs_src_path=str(path), inclusion=InclusionLevel.NOT_IN_NAV
        )
        files.append(file)
    return files


def on_page_markdown(markdown: str, /, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead the links to outside files to their copies."""
    del config, files
    source = _source(page.file.src_uri)
    folder = Path(page.file.src_uri).parent

    def lead(link: re.Match[str]) -> str:
        path = _existing(source, link["target"])
        return os.path.relpath(_place(path), folder) if path else link["target"]

    return _LINK.sub(lead, markdown)


def _all_linked(pages: list[Path]) -> set[Path]:
    found = set[Path]()
    while pages:
        linked = {path for page in pages for path in _linked_outside(page)} - found
        found |= linked
        pages = [path for path in linked if path.suffix == ".md"]
    return found


def _linked_outside(page: Path) -> set[Path]:
    links = _LINK.finditer(page.read_text(encoding="utf-8"))
    paths = (_existing(page, link["target"]) for link in links)
    return {path for path in paths if path and DOCS not in path.parents}


def _existing(page: Path, target: str) -> Path | None:
    """Return the file of the repository that a page's link names."""
    path = Path(os.path.normpath(page.parent / target))
    return path if path.is_file() and ROOT in path.parents else None


def _place(path: Path) -> str:
    """Return the path of a file inside the site's sources."""
    if DOCS in path.parents:
        return path.relative_to(DOCS).as_posix()
    ending = "" if path.suffix in _SHOWN else ".txt"
    return f"{COPIES}/{path.relative_to(ROOT).as_posix()}{ending}"


def _source(src_uri: str) -> Path:
    """Return the file that a page of the site was made from."""
    folder, _, path = src_uri.partition("/")
    return ROOT / path if folder == COPIES else DOCS / src_uri
