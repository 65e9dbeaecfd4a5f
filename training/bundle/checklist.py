"""The topics of CLAIM 2024 and TRIPOD+AI, each with a bundle's answer or none.

    manifest -> checklist -> printed by `export`, and a section of the model card

Answers come from the manifest: what was measured, what the recipe says, and what was stated of the
data. The topics are in words of our own; the two checklists have the exact ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cxr.manifest import Manifest
from cxr.study_schema import DataStatement, PartitionFigures
from training.bundle.data_statements import known_statement
from training.stats.figure_texts import figure_text

NOT_STATED = "not stated"


@dataclass(frozen=True, slots=True)
class ChecklistItem:
    """A topic, and what the bundle says on it; None if it says nothing."""

    topic: str
    answer: str | None


def statement_of(manifest: Manifest) -> DataStatement:
    """Return what was stated of the data at export, else what is published about them."""
    if manifest.study is not None:
        return manifest.study.statement
    return known_statement(manifest.training_data.name)


def checklist(manifest: Manifest) -> tuple[ChecklistItem, ...]:
    """Return every topic with its answer."""
    return (*_data_items(manifest), *_model_items(manifest), *_result_items(manifest))


def checklist_lines(manifest: Manifest) -> Iterator[str]:
    """Write the checklist as text: a count, then a line for each topic."""
    items = checklist(manifest)
    answered = sum(item.answer is not None for item in items)
    yield (
        f"CLAIM 2024 and TRIPOD+AI: {answered} of {len(items)} topics answered; answers to the "
        f"others come from a file (--study)"
    )
    for item in items:
        yield f"  {item.topic}: {item.answer or NOT_STATED}"


def _data_items(manifest: Manifest) -> Iterator[ChecklistItem]:
    statement, data = statement_of(manifest), manifest.training_data
    yield ChecklistItem("intended use and users", manifest.intended_use)
    yield ChecklistItem("study design, setting and dates", statement.setting)
    yield ChecklistItem("data sources and their terms", f"{data.name}; {data.licence}")
    yield ChecklistItem("eligibility", statement.eligibility)
    yield ChecklistItem("acquisition of the images", statement.acquisition)
    yield ChecklistItem("de-identification", statement.deidentification)
    yield ChecklistItem("missing data", _missing_data(manifest))
    yield ChecklistItem("reference standard", statement.reference_standard)
    yield ChecklistItem("variability of the reference standard", statement.reference_variability)
    yield ChecklistItem("treatment before the image", statement.treatment)
    yield ChecklistItem("sample size, how it came about", statement.sample_size)
    yield ChecklistItem("sample size, what it can show", _what_can_be_shown(manifest))
    yield ChecklistItem("partitions, and their level", "folds, split by person; see splits.csv")


def _model_items(manifest: Manifest) -> Iterator[ChecklistItem]:
    recipe, graph = manifest.recipe, manifest.graphs[0]
    yield ChecklistItem(
        "preprocessing",
        f"`cxr.preprocess` version {manifest.preprocess.version}, to {manifest.input_size} x "
        f"{manifest.input_size} pixels; the same code in training and serving",
    )
    parts = recipe.get("joined") or [{"recipe": recipe, "init_weights": recipe["init_weights"]}]
    networks = ", ".join(dict.fromkeys(str(part["recipe"]["network"]) for part in parts))
    yield ChecklistItem("model", f"{networks}; {graph.bytes / 1e6:.1f} MB, opset {graph.opset}")
    origins = dict.fromkeys(
        "random" if (started := part["init_weights"]) is None else str(started["file"])
        for part in parts
    )
    yield ChecklistItem("initial weights", ", ".join(origins))
    yield ChecklistItem("training in detail", "the recipe, its command and its commit, below")
    yield ChecklistItem(
        "choice of the final model",
        "mean of the weights after the last epochs; nothing is chosen on held-out images",
    )
    yield ChecklistItem("ensembling", _ensembling(parts))
    tools = ", ".join(f"{name} {version}" for name, version in manifest.tools.items())
    yield ChecklistItem("software", tools)
    yield ChecklistItem("code", f"Apache-2.0, commit {manifest.git_commit}")


def _result_items(manifest: Manifest) -> Iterator[ChecklistItem]:
    metrics, statement = manifest.metrics, statement_of(manifest)
    yield ChecklistItem(
        "performance, with its uncertainty",
        f"AUROC {figure_text(metrics.auroc, metrics.auroc_ci95, places=3)}, by "
        f"{metrics.auroc_ci95_method or 'no interval'}",
    )
    yield ChecklistItem("internal test", metrics.basis)
    yield ChecklistItem(
        "external test",
        None if metrics.recalibration is None else f"images of {metrics.recalibration.site}",
    )
    yield ChecklistItem("what others found elsewhere", statement.external_evidence)
    yield ChecklistItem(
        "robustness",
        None
        if metrics.stressed is None
        else f"mean AUROC with corrupted copies {figure_text(metrics.stressed.auroc, places=3)}",
    )
    clean, corrupted = metrics.calibration.clean, metrics.calibration.corrupted
    yield ChecklistItem(
        "calibration",
        f"ECE {figure_text(metrics.ece, places=3)}"
        if clean is None or corrupted is None
        else f"ECE {figure_text(clean.ece, places=3)} on clean images, "
        f"{figure_text(corrupted.ece, places=3)} on corrupted copies",
    )
    yield ChecklistItem("explanation", "a map that adds up to the logit; see the heat map below")
    yield ChecklistItem("demographics of each partition", _demographics(manifest))
    yield ChecklistItem("failure cases and groups", _failures(manifest))
    yield ChecklistItem("limitations", manifest.limits)
    yield ChecklistItem("registration, protocol, funding", statement.registration_and_funding)


def _ensembling(parts: Sequence[Mapping[str, Any]]) -> str:
    """Tell how many networks decide, and how many only draw the map."""
    counts = {"decides": 0, "draws": 0}
    for part in parts:
        normalisations = part["recipe"].get("normalisation") or part["recipe"]["greys"]
        counts["draws" if part.get("part") == "where" else "decides"] += len(normalisations)
    deciding = f"mean of {counts['decides']}" if counts["decides"] > 1 else "none"
    if not counts["draws"]:
        return deciding
    return f"{deciding} for the logit; {counts['draws']} others draw the map"


def _missing_data(manifest: Manifest) -> str | None:
    study = manifest.study
    if study is None:
        return None
    parts = study.partitions
    return (
        f"{study.unreadable:,} images could not be read and {study.without_file:,} had no file: "
        f"left out. Unknown: age of {_total(parts, 'age_unknown')}, sex of "
        f"{_total(parts, 'sex_unknown')}, view of {_total(parts, 'view_unknown')} images; these "
        "take part"
    )


def _total(parts: tuple[PartitionFigures, ...], field: str) -> str:
    return f"{sum(getattr(part, field) for part in parts):,}"


def _what_can_be_shown(manifest: Manifest) -> str:
    metrics = manifest.metrics
    counted = f"{metrics.n:,} images measured, {metrics.n_positive:,} positive"
    if metrics.auroc_ci95 is None:
        return counted
    low, high = metrics.auroc_ci95
    return (
        f"{counted}: the interval of the AUROC is {high - low:.3f} wide, so smaller differences "
        "from another model can't be told from chance, unless compared image by image"
    )


def _demographics(manifest: Manifest) -> str | None:
    if manifest.study is None:
        return None
    return f"{len(manifest.study.partitions)} partitions, see the table"


def _failures(manifest: Manifest) -> str | None:
    study = manifest.study
    if study is None or not study.errors:
        return None
    whole = study.errors[0]
    return (
        f"{whole.false_negatives:,} of {whole.positives:,} positive images missed, "
        f"{whole.false_positives:,} of {whole.images - whole.positives:,} others called; see the "
        "table by sex, view and age"
    )
