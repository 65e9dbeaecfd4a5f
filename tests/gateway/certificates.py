"""An authority of the test's own, and certificates that it has signed."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest


def make_certificates(folder: Path) -> None:
    """An authority, and certificates of a node and a peer."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine")
    run = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    for name in ("ca", "node", "peer"):
        authority = [str(folder / "ca.pem"), "-CAkey", str(folder / "ca.key")]
        signer = [] if name == "ca" else ["-CA", *authority]
        subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
        files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
        subprocess.run([*run, *signer, *subject, *files], check=True, capture_output=True)


def tls_of(folder: Path, name: str) -> dict[str, Any]:
    """Settings of one side: its certificate and key, and the authority of the others."""
    return {
        "certificate": folder / f"{name}.pem",
        "key": folder / f"{name}.key",
        "peers_ca": folder / "ca.pem",
    }
