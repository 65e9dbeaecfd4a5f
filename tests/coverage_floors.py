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
    "cxr": 93.0,
    "app": 93.0,
    "training": 92.0,
    "cxr_client": 92.0,
    "gateway": 87.0,
    "bulk": 87.0,
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
