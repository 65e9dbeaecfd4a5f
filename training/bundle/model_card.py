"""MODEL_CARD.md, generated from a manifest and from nothing else."""

import json
from collections.abc import Iterator
from pathlib import Path

from cxr.interpret import Scope
from cxr.manifest import Manifest
from cxr.metrics_schema import Localisation
from training.bundle.card_figures import (
    calibration_section,
    explanation_section,
    novelty_section,
    performance_section,
    precisions_section,
    robustness_section,
)
from training.bundle.card_study import checklist_section, external_warning, study_section
from training.recipe.schema import IMAGENET
from training.stats.figure_texts import figure_text

_USEFUL_AUROC = 0.7
"""If the interval begins below this, the card says so in its first lines."""

_PARTS = {
    "whether": "only decides: the map is not its own, and does not show why it decided so",
    "where": "only draws the map: its logit is left out",
}
"""What the parts of an ensemble that share the work do."""


def write_card(path: Path, manifest: Manifest) -> None:
    """Write a bundle's MODEL_CARD.md."""
    path.write_text(card_text(manifest), encoding="utf-8")


def card_text(manifest: Manifest) -> str:
    """Return the card: a YAML head for model hubs, then sections after Mitchell et al. 2019."""
    sections = (
        _head,
        _summary,
        _use,
        _data,
        study_section,
        performance_section,
        robustness_section,
        calibration_section,
        novelty_section,
        explanation_section,
        _graph,
        precisions_section,
        checklist_section,
        _commands,
    )
    return "\n".join(line for section in sections for line in (*section(manifest), ""))


def _head(manifest: Manifest) -> Iterator[str]:
    yield from (
        "---",
        "license: apache-2.0",
        "library_name: onnx",
        "pipeline_tag: image-classification",
        "tags:",
    )
    recipes = [joined["recipe"] for joined in manifest.recipe.get("joined") or ()] or [
        manifest.recipe
    ]
    networks = dict.fromkeys(str(recipe["network"]) for recipe in recipes)
    for tag in ("chest-x-ray", "radiography", manifest.finding, *networks, "not-for-diagnosis"):
        yield f"- {json.dumps(tag)}"
    yield "---"


def _summary(manifest: Manifest) -> Iterator[str]:
    plain = manifest.metrics
    yield f"# {manifest.model}, version {manifest.version}"
    yield ""
    yield (
        f"Reads one frontal chest radiograph and gives the probability of **{manifest.finding}**. "
        f"AUROC {figure_text(plain.auroc, plain.auroc_ci95, places=3)} on images that the "
        f"predicting network had not learned from."
    )
    yield ""
    if plain.auroc_ci95 is not None and plain.auroc_ci95[0] < _USEFUL_AUROC:
        yield from (
            "**On new images its answers may be little better than chance: see the interval.**",
            "",
        )
    yield "**For research. Not a medical device, not for diagnosis.**"
    if (warning := external_warning(manifest)) is not None:
        yield from ("", f"**Elsewhere:** {warning}")
    if plain.localisation is not None and plain.localisation.all.auroc is not None:
        yield from ("", *_by_lesion_size(plain.localisation))


def _by_lesion_size(localisation: Localisation) -> Iterator[str]:
    small, large = (f"{edge:.2%}" for edge in localisation.area_terciles)
    yield (
        f"By lesion size (small: up to {small} of the image, large: over {large}), against all "
        "images without the finding:"
    )
    yield ""
    yield "| lesions | images | AUROC | sensitivity, default operating point |"
    yield "|---|---|---|---|"
    for name, group in localisation.groups.items():
        yield (
            f"| {name} | {group.n:,} | {figure_text(group.auroc, group.auroc_ci95, places=3)} | "
            f"{figure_text(group.sensitivity, group.sensitivity_ci95, places=3)} |"
        )


def _use(manifest: Manifest) -> Iterator[str]:
    yield from ("## Intended use", "", manifest.intended_use, "", "## Scope", "")
    yield from _scope_lines(manifest.scope)
    yield from ("", "If a stated age, sex or view lies outside, the answer carries a warning.")
    yield from ("", "## Limits", "", manifest.limits)


def _data(manifest: Manifest) -> Iterator[str]:
    data = manifest.training_data
    yield from ("## Data", "")
    yield (
        f"`{data.name}`: {data.images:,} images of {data.person_groups:,} person groups, "
        f"{data.positives:,} of them positive."
    )
    yield from (
        "",
        f"Terms of the data, which may bind the use of what was learned from them: {data.licence}",
        "",
    )
    if started := manifest.recipe.get("init_weights"):
        yield f"- started from {_origin(started)}, its last layers anew"
    for joined in manifest.recipe.get("joined") or ():
        started = joined["init_weights"]
        origin = f"{_origin(started)}, the last layers anew" if started else "scratch"
        part = f"- the part `{joined['recipe']['name']}`"
        yield f"{part} started from {origin}"
        if does := _PARTS.get(joined.get("part", "both")):
            yield f"{part} {does}"
    yield f"- fingerprint (SHA-256 over the images' hashes and labels): `{data.sha256}`"
    yield f"- split by person, image by image in `splits.csv` (SHA-256 `{data.splits_sha256}`)"


def _origin(started: dict[str, str]) -> str:
    """Return the origin of the initial weights."""
    if started["file"] != IMAGENET:
        return f"`{started['file']}` (SHA-256 `{started['sha256']}`)"
    package = f", as `{started['package']}` has it" if "package" in started else ""
    file = f" (SHA-256 `{started['sha256']}`)" if "sha256" in started else ""
    return f"ImageNet{package}{file}, whose images are for research and teaching"


def _graph(manifest: Manifest) -> Iterator[str]:
    size = manifest.input_size
    yield from ("## Graph files", "")
    yield (
        f"Input `image`: uint8 [N, {size}, {size}], made by `cxr.preprocess` (version "
        f"{manifest.preprocess.version}). "
        "Errors against the torch network were measured at export; all but the logit's are "
        "relative to max(1, value)."
    )
    if manifest.metadata:
        columns = ", ".join(f"`{name}`" for name in manifest.metadata)
        yield ""
        yield (
            f"**It reads age, sex and view in addition to the image**, which may be a shortcut: "
            f"input `metadata`, float32 [N, {len(manifest.metadata)}], columns {columns} as "
            "`cxr.metadata_features` writes them, zero for what is unknown; output `bias` [N] is "
            "what they add to the logit, and the map's own bias."
        )
    yield ""
    yield (
        "| file | MB | opset | logit error | cam error | novelty error | cam identity | alone "
        "against batched | images |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for graph in manifest.graphs:
        parity = graph.parity
        errors = (
            parity.max_logit_error,
            parity.max_cam_error,
            parity.max_novelty_error,
            parity.max_cam_identity_error,
            parity.max_batch_error,
        )
        cells = " | ".join(f"{error:.1e}" for error in errors)
        yield (
            f"| `{graph.file}` | {graph.bytes / 1e6:.1f} | {graph.opset} | {cells} | "
            f"{parity.images} |"
        )
    for graph in manifest.graphs:
        yield from ("", f"SHA-256 of `{graph.file}`: `{graph.sha256}`")


def _commands(manifest: Manifest) -> Iterator[str]:
    yield from ("## How it was made", "", "```sh")
    yield from (joined["command"] for joined in manifest.recipe.get("joined") or ())
    yield manifest.command
    yield (
        f"python -m training export RUN --store model_store --model {manifest.model} --version "
        f"{manifest.version}"
    )
    yield from (
        "```",
        "",
        f"Commit `{manifest.git_commit}`; "
        + ", ".join(f"{name} {version}" for name, version in manifest.tools.items()),
    )
    yield from ("", "Recipe:", "", "```json", json.dumps(manifest.recipe, indent=2), "```")


def _scope_lines(scope: Scope) -> Iterator[str]:
    low, high = scope.min_age_years, scope.max_age_years
    if low is None and high is None:
        yield "- age: any"
    elif high is None:
        yield f"- age: from {low:g} years on"
    else:
        yield f"- age: {low or 0:g} to {high:g} years"
    yield f"- sex: {', '.join(scope.sexes) if scope.sexes else 'any'}"
    yield f"- view: {', '.join(scope.views) if scope.views else 'any frontal'}"
    yield f"- modality: {', '.join(scope.modalities)}"
