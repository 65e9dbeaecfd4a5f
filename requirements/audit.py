"""Look every pinned package up in the database of known faults, and fail unless every one was
looked up.

Where the database can't be reached, pip-audit skips each package and still says
that all is well.  So a release known to be faulty is looked up first: if nothing
is found against it, nobody was asked.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LOCKS = (
    "serve-cpu.txt",
    "serve-openvino.txt",
    "serve-gpu.txt",
    "serve-otel.txt",
    "train.txt",
    "test.txt",
)
CANARY = "jinja2==2.4.1"
"""Faults of this release have been public since 2014."""


def look_up(requirements: Path) -> list[dict[str, Any]]:
    """Ask pip-audit about a list of exact pins; gives one entry a package."""
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--strict",
        "--disable-pip",
        "--no-deps",
        "--format=json",
        "-r",
        requirements,
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        sys.exit(f"{requirements.name}: pip-audit gave no report:\n{done.stderr[-2000:]}")
    return found


def prove_that_somebody_answers() -> None:
    """Look up a release that is known to be faulty; ends the program if nothing is known against
    it.
    """
    with tempfile.TemporaryDirectory() as folder:
        canary = Path(folder) / "canary.txt"
        canary.write_text(CANARY + "\n")
        if not any(entry.get("vulns") for entry in look_up(canary)):
            sys.exit(
                f"NOT AUDITED: nothing is found against {CANARY}, so the database was not reached"
            )


def audit(lock: Path) -> list[str]:
    """Name every fault of a lock file's packages, and every package that was not looked up."""
    entries = look_up(lock)
    pins = {
        line.split("==")[0].split("[")[0] for line in lock.read_text().splitlines() if "==" in line
    }
    missed = pins - {entry["name"] for entry in entries if "vulns" in entry}
    faults = [
        f"{entry['name']} {entry['version']}: {fault['id']}"
        for entry in entries
        for fault in entry.get("vulns", [])
    ]
    return faults + [f"{name}: not looked up" for name in sorted(missed)]


def main() -> int:
    """Audit every lock file; 0 only where each package was looked up and nothing is known against
    it.
    """
    prove_that_somebody_answers()
    status = 0
    for file in LOCKS:
        problems = audit(HERE / file)
        print(f"{file}: {'; '.join(problems) or 'nothing known against any package'}")  # noqa: T201
        status |= bool(problems)
    return status


if __name__ == "__main__":
    sys.exit(main())
