"""State figures that were measured after export in a bundle's own texts; its graphs and decisions stay as they are."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cxr.bundle import read_bundle, write_manifest
from training.card import write_card


def state_gate(bundle_dir: Path, gate: Mapping[str, Any]) -> None:
    """Write the novelty gate's figures into `bundle.json`, `metrics.json` and `MODEL_CARD.md`; raises `BundleError`."""
    manifest = read_bundle(bundle_dir).manifest
    stated = manifest.model_copy(update={"metrics": {**manifest.metrics, "novelty_gate": dict(gate)}})
    write_manifest(bundle_dir / "bundle.json", stated)
    (bundle_dir / "metrics.json").write_text(json.dumps(stated.metrics, indent=2) + "\n", encoding="utf-8")
    write_card(bundle_dir / "MODEL_CARD.md", stated)
