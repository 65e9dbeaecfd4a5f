"""The documentation builds as a site, and every link, anchor and API reference in it holds."""

import os
import subprocess
import sys
from pathlib import Path

from tests.server import ROOT


def test_the_site_builds_without_a_warning_and_names_the_api(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cxr.decode.decode" in (tmp_path / "api-cxr/index.html").read_text()
    assert "cxr_client.client.Client" in (tmp_path / "api-client/index.html").read_text()
