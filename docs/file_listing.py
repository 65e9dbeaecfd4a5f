"""Write docs/files.md, the list of source files: `python docs/file_listing.py`.

Each line holds a file's path and the first sentence of its docstring.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/files.md"
_PACKAGES = ("cxr", "app", "training", "cxr_client", "gateway", "bulk")
_HEAD = """# Files

Every Python file and what is in it.
`python docs/file_listing.py` writes this page from the docstrings.

The service's page (HTML, CSS, JavaScript) is in `app/page/`. HTML templates are in
`training/html/templates/` and `gateway/templates/`.
"""


def file_listing() -> str:
    """Return the page: one table a package, one row a file with the summary of its docstring."""
    tables = [_table(ROOT / package) for package in _PACKAGES if (ROOT / package).is_dir()]
    return "\n".join([_HEAD, *tables])


def _table(package: Path) -> str:
    head = [f"## {package.name}/", "", "| file | what is in it |", "|---|---|"]
    paths = sorted(package.rglob("*.py"), key=lambda path: (path.parent, path.name))
    rows = [f"| `{path.relative_to(package).as_posix()}` | {_summary(path)} |" for path in paths]
    return "\n".join([*head, *rows, ""])


def _summary(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.split("\n\n")[0].split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(file_listing(), encoding="utf-8")
