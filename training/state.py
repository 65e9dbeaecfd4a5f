"""State figures that were measured after export in a bundle's own texts; its graphs and decisions stay as they are."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cxr.bundle import FastPrecision, Manifest, read_bundle, write_manifest
from training.card import write_card
from training.gate import TOLERANCES


def state_gate(bundle_dir: Path, gate: Mapping[str, Any]) -> None:
    """Write the novelty gate's figures into `bundle.json`, `metrics.json` and `MODEL_CARD.md`; raises `BundleError`."""
    manifest = read_bundle(bundle_dir).manifest
    _write(bundle_dir, manifest.model_copy(update={"metrics": {**manifest.metrics, "novelty_gate": dict(gate)}}))


def state_fast(bundle_dir: Path, verdict: Mapping[str, Any], fast: FastPrecision | None) -> None:
    """Write what bf16 costs into the same, with whether `CXR_PRECISION=fast` may serve the model; raises `BundleError`.

    The golden answers stay too; `golden.npz` gets the tolerances by which `fast` was judged.
    """
    bundle = read_bundle(bundle_dir)
    manifest = bundle.manifest
    precisions = {**manifest.metrics.get("precisions", {}), "bf16": dict(verdict)}
    replace(bundle.golden, tolerances=TOLERANCES).save(bundle_dir / "golden.npz")
    _write(bundle_dir, manifest.model_copy(update={"metrics": {**manifest.metrics, "precisions": precisions}, "fast": fast}))


def _write(bundle_dir: Path, manifest: Manifest) -> None:
    write_manifest(bundle_dir / "bundle.json", manifest)
    (bundle_dir / "metrics.json").write_text(json.dumps(manifest.metrics, indent=2) + "\n", encoding="utf-8")
    write_card(bundle_dir / "MODEL_CARD.md", manifest)
