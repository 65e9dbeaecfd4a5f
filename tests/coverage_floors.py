"""Print how much of each package the tests run, and fail if one is below its floor.

`make test COVERAGE=yes` runs this after the tests.
"""

import sys
from io import StringIO
from pathlib import Path

import coverage
import coverage.exceptions

ROOT = Path(__file__).parent.parent
FLOORS = {
    "cxr": 94.0,
    "app": 96.0,
    "training": 80.0,
    "cxr_client": 85.0,
    "gateway": 80.0,
    "bulk": 80.0,
}
"""Percent of a package's lines."""


def main() -> int:
    """Print one line a package; return 1 if one is below its floor."""
    measured = coverage.Coverage(data_file=ROOT / ".coverage", config_file=ROOT / "pyproject.toml")
    measured.load()
    below = 0
    for package, floor in FLOORS.items():
        try:
            percent = measured.report(include=[f"{ROOT / package}/*"], file=StringIO())
        except coverage.exceptions.NoDataError:  # no test has run a line of it
            percent = 0.0
        below += percent < floor
        print(f"{package:12} {percent:5.1f} % of its lines, at least {floor} wanted")
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
