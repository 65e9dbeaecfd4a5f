"""Sections of the model card on who was measured, where it was wrong, and the checklist."""

from collections.abc import Iterator

from cxr.manifest import Manifest
from cxr.study_schema import PartitionFigures
from training.bundle.checklist import NOT_STATED, checklist, statement_of


def study_section(manifest: Manifest) -> Iterator[str]:
    """Write partitions and errors; nothing for a bundle that was exported without them."""
    study = manifest.study
    if study is None:
        return
    yield from ("## Who was measured", "")
    yield "| | images (positive) | persons | age, quartiles | women, men | AP, PA |"
    yield "|---|---|---|---|---|---|"
    yield from map(_partition_row, study.partitions)
    yield from ("", "Images whose value is unknown are counted in no column.")
    yield from ("", "## Where it was wrong", "")
    yield "At the default operating point, on images that the predicting network had not seen."
    yield from ("", "| | images (positive) | missed | called without the finding |")
    yield "|---|---|---|---|"
    for group in study.errors:
        yield (
            f"| {group.name} | {group.images:,} ({group.positives:,}) | "
            f"{_part(group.false_negatives, group.positives)} | "
            f"{_part(group.false_positives, group.images - group.positives)} |"
        )
    if study.surest_errors:
        named = "; ".join(
            f"`{error.image}` ({error.probability:.2f}, label {error.label})"
            for error in study.surest_errors
        )
        yield from ("", f"Its surest errors, by their names in `splits.csv`: {named}.")


def external_warning(manifest: Manifest) -> str | None:
    """Return what others found at other hospitals, for the card's first page."""
    return statement_of(manifest).external_evidence


def checklist_section(manifest: Manifest) -> Iterator[str]:
    """Write every topic of CLAIM 2024 and TRIPOD+AI with its answer."""
    items = checklist(manifest)
    answered = sum(item.answer is not None for item in items)
    yield from ("## Reporting checklist", "")
    yield (
        f"Topics of CLAIM 2024 (10.1148/ryai.240300) and TRIPOD+AI (10.1136/bmj-2023-078378): "
        f"{answered} of {len(items)} are answered."
    )
    yield from ("", "| topic | answer |", "|---|---|")
    for item in items:
        answer = (item.answer or NOT_STATED).replace("|", "\\|")
        yield f"| {item.topic} | {answer} |"


def _partition_row(part: PartitionFigures) -> str:
    ages = "unknown" if part.age_quartiles is None else _quartiles(part.age_quartiles)
    return (
        f"| {part.name} | {part.images:,} ({part.positives:,}) | {part.persons:,} | {ages} | "
        f"{_pair(part.female, part.male)} | "
        f"{_pair(part.anteroposterior, part.posteroanterior)} |"
    )


def _pair(one: int, other: int) -> str:
    return f"{one:,}, {other:,}" if one or other else "unknown"


def _quartiles(ages: tuple[float, float, float]) -> str:
    low, middle, high = ages
    return f"{middle:.0f} ({low:.0f} to {high:.0f})"


def _part(count: int, of: int) -> str:
    return f"{count:,} ({count / of:.0%})" if of else "none"
