"""Add figures measured after export to an existing bundle. Graphs, thresholds and golden answers do
not change.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cxr.bundle import file_sha256, read_bundle
from cxr.manifest import FastPrecision, Manifest, write_manifest
from training.bundle.gates import TOLERANCES
from training.bundle.model_card import write_card
from training.errors import TrainingError


class TooFew(TrainingError):
    """The new figures rest on fewer radiographs than those that the bundle has already."""


def state_gate(bundle_dir: Path, gate: Mapping[str, Any]) -> None:
    """Write the novelty gate's figures into `bundle.json`, `metrics.json` and `MODEL_CARD.md`.

    Raises: BundleError: the bundle can't be read. TooFew: the bundle has figures of more
    radiographs already.
    """
    manifest = read_bundle(bundle_dir).manifest
    measured, stated = (
        figures["radiographs"]["n"]
        for figures in (gate, manifest.metrics.get("novelty_gate", gate))
    )
    if measured < stated:
        raise TooFew(
            f"{bundle_dir} states its novelty gate by {stated:,} radiographs; these {measured:,} "
            f"would say less"
        )
    _write(
        bundle_dir,
        manifest.model_copy(update={"metrics": {**manifest.metrics, "novelty_gate": dict(gate)}}),
    )


def state_fast(bundle_dir: Path, verdict: Mapping[str, Any], fast: FastPrecision | None) -> None:
    """Write the cost of bf16 into the same files, and allow or forbid `CXR_PRECISION=fast`. Raise
    `BundleError` if the bundle can't be read.

    If it is allowed, `golden.npz` gets the tolerance that was used. The golden answers do not
    change.
    """
    bundle = read_bundle(bundle_dir)
    manifest, golden = bundle.manifest, bundle.golden
    precisions = {**manifest.metrics.get("precisions", {}), "bf16": dict(verdict)}
    if fast is not None:
        name = f"{fast.engine}/{fast.precision}"
        replace(golden, tolerances={**golden.tolerances, name: TOLERANCES[name]}).save(
            bundle_dir / "golden.npz"
        )
    _write(
        bundle_dir,
        manifest.model_copy(
            update={"metrics": {**manifest.metrics, "precisions": precisions}, "fast": fast}
        ),
    )


def _write(bundle_dir: Path, manifest: Manifest) -> None:
    golden_sha256 = file_sha256(bundle_dir / "golden.npz")
    manifest = manifest.model_copy(update={"golden_sha256": golden_sha256})
    write_manifest(bundle_dir / "bundle.json", manifest)
    (bundle_dir / "metrics.json").write_text(
        json.dumps(manifest.metrics, indent=2) + "\n", encoding="utf-8"
    )
    write_card(bundle_dir / "MODEL_CARD.md", manifest)
