"""Settings of a gateway that a test starts."""

from pathlib import Path
from typing import Any

from gateway.settings import GatewaySettings

SILENT_RULE = {"name": "all", "silent": True}


def make_settings(folder: Path, **tables: Any) -> GatewaySettings:
    """Settings of a node on a free port of the loopback."""
    node = {
        "host": "127.0.0.1",
        "port": 0,
        "folder": folder,
        "min_free_percent": 0,
        "min_free_gb": 0,
    }
    return GatewaySettings.model_validate(
        {
            "peers": [{"ae_title": "SENDER"}],
            "rules": [SILENT_RULE],
            **tables,
            "node": node | tables.get("node", {}),
            "http": {"port": 0} | tables.get("http", {}),
        }
    )
