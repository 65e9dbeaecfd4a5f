"""MODEL_CARD.md, generated from a manifest and from nothing else."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cxr.interpret import Scope
from cxr.manifest import Manifest
from training.evaluation.ood import novelty_lines
from training.recipe.schema import IMAGENET
from training.stats.localisation import localisation_lines

_USEFUL_AUROC = 0.7
"""An interval that begins below this makes the card speak up in its first lines."""


_POOLS = {"mean": "mean", "lse": "log of the mean exponential"}
_NOT_COMPARED = "it does not segment a lesion and was not compared with radiologists' marks."


def write_card(path: Path, manifest: Manifest) -> None:
    """Write a bundle's MODEL_CARD.md."""
    path.write_text(card_text(manifest), encoding="utf-8")


def card_text(manifest: Manifest) -> str:
    """Return the card: a YAML head for model hubs, then the sections of Mitchell et al. 2019 that
    we can fill.
    """
    sections = (
        _head, _summary, _use, _data, _performance, _stress, _calibration, _novelty, _explanation,
        _graph, _precisions,
        _commands,
    )  # fmt: skip
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
        f"AUROC {_figure(plain['auroc'], plain['auroc_ci95'])} on images that the predicting "
        f"network had not learned from."
    )
    yield ""
    if plain["auroc_ci95"] is not None and plain["auroc_ci95"][0] < _USEFUL_AUROC:
        yield from (
            "**On new images its answers may be little better than chance: see the interval.**",
            "",
        )
    yield "**For research. Not a medical device, not for diagnosis.**"


def _use(manifest: Manifest) -> Iterator[str]:
    yield from ("## Intended use", "", manifest.intended_use, "", "## Scope", "")
    yield from _scope_lines(manifest.scope)
    yield from ("", "Where a stated age, sex or view lies outside, the answer carries a warning.")
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
        yield f"- the part `{joined['recipe']['name']}` started from {origin}"
    yield f"- fingerprint (SHA-256 over the images' hashes and labels): `{data.sha256}`"
    yield f"- split by person, image by image in `splits.csv` (SHA-256 `{data.splits_sha256}`)"


def _origin(started: dict[str, str]) -> str:
    """Return the origin of the initial weights."""
    if started["file"] != IMAGENET:
        return f"`{started['file']}` (SHA-256 `{started['sha256']}`)"
    package = f", as `{started['package']}` has it" if "package" in started else ""
    file = f" (SHA-256 `{started['sha256']}`)" if "sha256" in started else ""
    return f"ImageNet{package}{file}, whose images are for research and teaching"


def _performance(manifest: Manifest) -> Iterator[str]:
    plain, tta = manifest.metrics, manifest.metrics["tta"]
    yield from ("## Performance", "", f"Measured on: {plain['basis']}", "")
    yield (
        "Intervals are 95 %: the AUROC's by "
        + (plain["auroc_ci95_method"] or "nothing, one class")
        + "; rates' by Wilson."
    )
    yield from ("", f"| | plain | TTA `{tta['policy']}` |", "|---|---|---|")
    yield (
        f"| images (positive) | {plain['n']:,} ({plain['n_positive']:,}) | {tta['n']:,} "
        f"({tta['n_positive']:,}) |"
    )
    yield f"| AUROC | {_interval(plain, 'auroc')} | {_interval(tta, 'auroc')} |"
    for key, name in (
        ("average_precision", "average precision"),
        ("brier", "Brier score"),
        ("ece", "ECE, 15 bins"),
    ):
        yield f"| {name} | {_figure(plain[key])} | {_figure(tta[key])} |"
    for name, figures in (("Plain", plain), (f"TTA `{tta['policy']}`", tta)):
        yield from ("", f"### {name}, by operating point", "")
        yield from _operating_point_table(figures)
    yield from ("", "How each point was chosen:", "")
    for name, point in plain["operating_points"].items():
        default = " (default)" if name == manifest.default_operating_point else ""
        yield f"- `{name}`{default}: {point['criterion']}"


def _operating_point_table(figures: Mapping[str, Any]) -> Iterator[str]:
    yield "| | threshold | accuracy | sensitivity | specificity | PPV | NPV | tn, fp / fn, tp |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, point in figures["operating_points"].items():
        (tn, fp), (fn, tp) = point["confusion"]
        rates = " | ".join(
            _interval(point, key)
            for key in ("accuracy", "sensitivity", "specificity", "ppv", "npv")
        )
        yield f"| `{name}` | {point['threshold']:.4f} | {rates} | {tn}, {fp} / {fn}, {tp} |"


def _stress(manifest: Manifest) -> Iterator[str]:
    corrupted = manifest.metrics["stressed"]
    yield from ("## Shifted copies", "")
    yield (
        "The plain view of the same images after a change that another hospital's radiographs "
        "may have; rates at raw logit 0."
    )
    yield from ("", "| | AUROC | sensitivity | specificity |", "|---|---|---|---|")
    for name, found in corrupted["stresses"].items():
        shown = "unchanged" if name == "none" else name
        yield (
            f"| {shown} | "
            f"{_figure(found['auroc'])} | {_figure(found['sensitivity'])} | "
            f"{_figure(found['specificity'])} |"
        )
    yield f"| **mean** | {_figure(corrupted['auroc'])} | | |"


def _calibration(manifest: Manifest) -> Iterator[str]:
    yield from (
        "## Calibration",
        "",
        (
            "`probability = sigmoid(slope * logit + intercept)` (Platt), fitted on the images "
            "above and on corrupted copies of them together; of the maps that fit, the least sure. "
            "A slope left to fit of 1 is right; below 1 the answers are too sure there."
        ),
        "",
    )
    tta = manifest.metrics["tta"]
    for name, fit in (
        ("plain", manifest.metrics["calibration"]),
        (tta["policy"], tta["calibration"]),
    ):
        note, honest = f"; {fit['note']}" if fit["note"] else "", fit["cross_fitted"]
        yield (
            f"- {name}: slope {_figure(fit['slope'], fit['slope_ci95'])}, "
            f"intercept {_figure(fit['intercept'], fit['intercept_ci95'])}{note}; "
            f"fitted without the image's person: ECE {_figure(honest['ece'])}, on corrupted copies "
            f"{_figure(honest.get('ece_corrupted'))}, Brier score {_figure(honest['brier'])}"
        )
        for kind in ("clean", "corrupted"):
            if found := fit.get(kind):
                yield (
                    f"  - on {kind} images: ECE {_figure(found['ece'])}, slope left to fit "
                    f"{_figure(found['slope'])}"
                )
    yield from (
        "",
        (
            "Probabilities refer to the share of positives in the data above; elsewhere they shift "
            "with prevalence."
        ),
    )


def _novelty(manifest: Manifest) -> Iterator[str]:
    limits, caught = manifest.novelty, manifest.metrics["novelty"]
    yield from ("## Novelty", "")
    yield (
        "The graph gives the whitened distance of an image's coarse shape and features from those "
        "of the training images. "
        f"Above {limits.warn:.2f} the answer carries a warning, above {limits.novel:.2f} it calls "
        f"the image novel. "
        f"The two limits are the {limits.source}. "
        f"Of {caught['edge_images']} made images that are no radiographs (flat, ramps, noise, "
        f"checkers, a square), "
        f"{caught['edge_images_warned']} are warned of and {caught['edge_images_novel']} called "
        f"novel: "
        "a short distance is no proof that an image is a chest radiograph."
    )
    if gate := manifest.metrics.get("novelty_gate"):
        yield from ("", *novelty_lines(gate))


def _explanation(manifest: Manifest) -> Iterator[str]:
    localisation = manifest.metrics.get("localisation")
    yield from ("## Heat map", "")
    yield (
        f"`cam` is the logit itself, spread over the picture: its {_POOLS[manifest.cam.pool]} "
        f"plus {manifest.cam.bias:.6g} "
        "is the logit. It shows what moved the answer, coarsely; "
    ) + ("it does not segment a lesion." if localisation else _NOT_COMPARED)
    if localisation:
        yield from (
            "",
            (
                "Compared with the segmentation masks of positive images by networks that had not "
                "seen them:"
            ),
            "",
        )
        yield from localisation_lines(localisation)


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
        yield ""
        columns = ", ".join(f"`{name}`" for name in manifest.metadata)
        yield (
            f"**It reads age, sex and view beside the image**, which may be a shortcut: input "
            f"`metadata`, float32 "
            f"[N, {len(manifest.metadata)}], columns {columns} as `cxr.metadata_features` writes "
            f"them, zero for what is unknown; "
            "output `bias` [N] is what they add to the logit, and the map's own bias."
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
            parity.max_logit_error, parity.max_cam_error, parity.max_novelty_error,
            parity.max_cam_identity_error, parity.max_batch_error,
        )  # fmt: skip
        cells = " | ".join(f"{error:.1e}" for error in errors)
        yield (
            f"| `{graph.file}` | {graph.bytes / 1e6:.1f} | {graph.opset} | {cells} | "
            f"{parity.images} |"
        )
    for graph in manifest.graphs:
        yield from ("", f"SHA-256 of `{graph.file}`: `{graph.sha256}`")


def _precisions(manifest: Manifest) -> Iterator[str]:
    verdicts = manifest.metrics.get("precisions")
    if not verdicts:
        return
    yield from ("## Other precisions", "")
    yield (
        "Against fp32 in ONNX Runtime, on images that the predicting network had not learned from "
        "(plain view). "
        "Allowed where the AUROC moves by at most 0.003 and at most 1 % of labels change at any "
        "operating point; "
        "fp16 moreover must not move a probability by more than 0.01, and int8's maps must "
        "correlate by 0.95."
    )
    yield from (
        "",
        (
            "| | images | AUROC change | changed labels | largest change of a probability | map "
            "correlation | allowed |"
        ),
    )
    yield "|---|---|---|---|---|---|---|"
    for name, verdict in verdicts.items():
        allowed = "yes" if verdict["allowed"] else "no: " + "; ".join(verdict["refused_for"])
        yield f"| {_PRECISIONS[name]} | {_cost_cells(verdict)} | {allowed} |"
    if fast := manifest.fast:
        yield from (
            "",
            f"bf16 was measured with {fast.tool} on a processor with {fast.instructions}.",
        )


_PRECISIONS = {
    "fp16": "`model.fp16.onnx`",
    "int8": "`model.int8.onnx`",
    "bf16": "`CXR_PRECISION=fast`, OpenVINO in bf16",
}


def _cost_cells(verdict: Mapping[str, Any]) -> str:
    if "images" not in verdict:
        return " | ".join(5 * ["not measured"])
    change = verdict["auroc_change"]
    return (
        f"{verdict['images']:,} | {'not measurable' if change is None else f'{change:+.4f}'} | "
        f"{verdict['flips']:.2%} "
        f"| {verdict['max_probability_change']:.4f} | {verdict['cam_correlation']:.4f}"
    )


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


def _interval(figures: Mapping[str, Any], key: str) -> str:
    return _figure(figures[key], figures[f"{key}_ci95"])


def _figure(value: float | None, interval: list[float] | None = None) -> str:
    if value is None:
        return "not measurable"
    return f"{value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")
