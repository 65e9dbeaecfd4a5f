"""A real Orthanc of the test's own, on free ports of the loopback."""

import json
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server import free_port

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
REPORT = "1.2.840.10008.5.1.4.1.1.88.34"


@dataclass
class Archive:
    """An archive that can be stopped and started again with what it holds."""

    folder: Path
    more: dict[str, Any] = field(default_factory=dict)
    http_port: int = field(default_factory=free_port)
    dicom_port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """Where its REST interface is."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def stow_url(self) -> str:
        """Where its DICOMweb interface is."""
        return f"{self.url}/dicom-web"

    @property
    def log(self) -> Path:
        """What all its runs have logged."""
        return self.folder / "log"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        if shutil.which("Orthanc") is None or not PLUGIN.exists():
            pytest.skip("no Orthanc on this machine")
        if shutil.which("storescu") is None:
            pytest.skip("no dcmtk on this machine")
        self.folder.mkdir(exist_ok=True)
        settings = {
            "StorageDirectory": str(self.folder / "db"), "IndexDirectory": str(self.folder / "db"),
            "HttpPort": self.http_port, "DicomPort": self.dicom_port, "DicomAet": "ARCHIVE",
            "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
            "OverwriteInstances": False, "DicomCheckCalledAet": False,
            "DicomAlwaysAllowStore": True, "DicomAlwaysAllowFind": True,
            "Plugins": [str(PLUGIN)], "DicomWeb": {"Enable": True}, "ConcurrentJobs": 1,
            **self.more,
        }  # fmt: skip
        (self.folder / "orthanc.json").write_text(json.dumps(settings))
        with self.log.open("ab") as file:
            command = ["Orthanc", "--verbose", str(self.folder / "orthanc.json")]
            self.process = subprocess.Popen(command, stdout=file, stderr=file)
        until = time.monotonic() + 600
        while True:
            try:
                httpx.get(f"{self.url}/system").raise_for_status()
                return
            except httpx.TransportError:
                assert self.process.poll() is None, self.log.read_text()[-2000:]
                assert time.monotonic() < until, "Orthanc does not start"
                time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(60)
            self.process = None

    def find(self, **tags: str) -> list[dict[str, Any]]:
        """Instances by tags, each with the tags that name it."""
        query = {"Level": "Instance", "Query": tags, "Expand": True, "Limit": 0}
        response = httpx.post(f"{self.url}/tools/find", json=query, timeout=120)
        return list(response.raise_for_status().json())

    def reports(self) -> dict[str, bytes]:
        """Every structured report that it holds, by SOP Instance UID."""
        found = self.find(Modality="SR")
        reports: dict[str, bytes] = {}
        for instance in found:
            uid = instance["MainDicomTags"]["SOPInstanceUID"]
            assert uid not in reports, "the archive holds a report twice"
            file = httpx.get(f"{self.url}/instances/{instance['ID']}/file", timeout=60)
            reports[uid] = file.raise_for_status().content
        return reports

    def count_reports(self) -> int:
        """How many structured reports it holds."""
        query = {"Level": "Instance", "Query": {"Modality": "SR"}, "Limit": 0}
        return len(httpx.post(f"{self.url}/tools/find", json=query, timeout=120).json())

    def stored_lines(self) -> tuple[int, int]:
        """How many instances its log says were new, and how many came again."""
        text = self.log.read_text(errors="replace")
        return text.count("New instance stored"), text.count("Already stored")
