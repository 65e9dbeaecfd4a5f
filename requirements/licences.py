"""List the licences of everything that the image ships; fail on one that would bind what uses it
(GPL, AGPL).

Compiled libraries inside wheels have licences of their own, in each wheel's
`licenses` folder.  GCC's run-time libraries (libgomp, libgfortran, libquadmath) come under the GPL
with the GCC Runtime Library Exception, which lets any program use them.
"""

import re
import sys
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata
from pathlib import Path

HERE = Path(__file__).parent
BINDING = re.compile(r"\bA?GPL|GNU (Affero )?General Public", re.IGNORECASE)


def licence_of(described: PackageMetadata) -> str:
    """Give a package's licence: the SPDX expression, the classifiers, or the first line of its
    text.
    """
    classifiers = [
        line.split(" :: ")[-1]
        for line in described.get_all("Classifier") or []
        if line.startswith("License ::")
    ]
    text = (described.get("License") or "").strip().splitlines()
    return (
        described.get("License-Expression")
        or ", ".join(classifiers)
        or (text[0] if text else "unstated")
    )


def shipped(lock: Path) -> list[str]:
    """List the packages of a lock file."""
    return [
        line.split("==")[0].split("[")[0] for line in lock.read_text().splitlines() if "==" in line
    ]


def main() -> int:
    """Print one line a package; 1 where one is bound, unstated or not installed."""
    bad = []
    for name in shipped(HERE / "serve-cpu.txt"):
        try:
            licence = licence_of(metadata(name))
        except PackageNotFoundError:
            licence = "unstated"
        if licence == "unstated" or BINDING.search(licence):
            bad.append(f"{name}: {licence}")
        print(f"{name:24} {licence}")  # noqa: T201
    for line in bad:
        print(f"NOT ALLOWED: {line}", file=sys.stderr)  # noqa: T201
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
