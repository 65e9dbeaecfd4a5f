"""Add figures measured after export to an existing bundle. Graphs, thresholds and golden answers do
not change.
"""

from dataclasses import replace
from pathlib import Path

from cxr.bundle import file_sha256, read_bundle
from cxr.manifest import FastPrecision, Manifest, write_manifest
from cxr.metrics_schema import NoveltyGate, PrecisionFigures
from cxr.study_schema import Study
from training.bundle.model_card import write_card
from training.bundle.release_gates.gate import TOLERANCES
from training.errors import TrainingError


class TooFew(TrainingError):
    """The new figures rest on fewer radiographs than those that the bundle has already."""


def state_gate(bundle_dir: Path, gate: NoveltyGate) -> None:
    """Write the novelty gate's figures into `bundle.json`, `metrics.json` and `MODEL_CARD.md`.

    Raises:
        BundleError: the bundle can't be read.
        TooFew: the bundle has figures of more radiographs already.
    """
    manifest = read_bundle(bundle_dir).manifest
    stated = manifest.metrics.novelty_gate
    measured = gate.radiographs.n
    if stated is not None and measured < stated.radiographs.n:
        raise TooFew(
            f"{bundle_dir} states its novelty gate by {stated.radiographs.n:,} radiographs; these "
            f"{measured:,} would say less"
        )
    metrics = manifest.metrics.changed(novelty_gate=gate)
    write_texts(bundle_dir, manifest.model_copy(update={"metrics": metrics}))


def state_fast(bundle_dir: Path, figures: PrecisionFigures, fast: FastPrecision | None) -> None:
    """Write the cost of bf16 into the same files, and allow or forbid `CXR_PRECISION=fast`. Raise
    `BundleError` if the bundle can't be read.

    If it is allowed, `golden.npz` gets the tolerance that was used. The golden answers do not
    change.
    """
    bundle = read_bundle(bundle_dir)
    manifest, golden = bundle.manifest, bundle.golden
    precisions = (manifest.metrics.precisions or {}) | {"bf16": figures}
    if fast is not None:
        name = f"{fast.engine}/{fast.precision}"
        tolerances = {**golden.tolerances, name: TOLERANCES[name]}
        replace(golden, tolerances=tolerances).save(bundle_dir / "golden.npz")
    metrics = manifest.metrics.changed(precisions=precisions)
    write_texts(bundle_dir, manifest.model_copy(update={"metrics": metrics, "fast": fast}))


def state_study(bundle_dir: Path, study: Study) -> None:
    """Write who the bundle's data are, and its errors, into the same files; raise `BundleError`."""
    manifest = read_bundle(bundle_dir).manifest
    write_texts(bundle_dir, manifest.model_copy(update={"study": study}))


def write_texts(folder: Path, manifest: Manifest) -> None:
    """Write `bundle.json`, `metrics.json` and `MODEL_CARD.md`, which all come from the manifest."""
    golden_sha256 = file_sha256(folder / "golden.npz")
    manifest = manifest.model_copy(update={"golden_sha256": golden_sha256})
    write_manifest(folder / "bundle.json", manifest)
    (folder / "metrics.json").write_text(manifest.metrics.text(), encoding="utf-8")
    write_card(folder / "MODEL_CARD.md", manifest)
