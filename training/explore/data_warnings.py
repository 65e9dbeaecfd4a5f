"""What someone should know before training on this data: one sentence a thing, the worst first."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["alarm", "note", "good"]


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing to know: `alarm` spoils results if it is overlooked, `note` is to be borne in
    mind.
    """

    level: Level
    text: str


def remarks(figures: Mapping[str, Any]) -> list[Remark]:
    """Return the remarks on figures of explore.json, alarms first."""
    found = [
        *_on_files(figures["files"]),
        *_on_classes(figures),
        *_on_persons(figures["persons"]),
        *_on_duplicates(figures["duplicates"]),
        *_on_metadata(figures["metadata"]),
        *_on_shortcuts(figures["shortcuts"]),
        *_on_lesions(figures["lesions"]),
    ]
    order: tuple[Level, ...] = ("alarm", "note", "good")
    return sorted(found, key=lambda remark: order.index(remark.level))


def _on_files(files: Mapping[str, Any]) -> Iterator[Remark]:
    rows, images = files["table_rows"], files["listed_images"]
    if rows is not None and rows != images:
        yield Remark(
            "note",
            f"{rows:,} rows are {images:,} images: the table has one row a mask, so count images, "
            f"never rows.",
        )
    if files["unreadable"]:
        yield Remark(
            "alarm",
            f"Files that can't be read, listed below and left out of training: "
            f"{len(files['unreadable']):,}.",
        )
    else:
        yield Remark("good", f"All {files['files']:,} files can be read.")
    if files["missing"]["n"]:
        yield Remark("alarm", f"Images of the table without a file: {files['missing']['n']:,}.")
    if files["stubs"]:
        yield Remark(
            "note", f"Files of macOS (._NAME), which were passed over: {files['stubs']:,}."
        )
    if files["unlisted"]["n"]:
        yield Remark(
            "note", f"Files without a label, which take no part: {files['unlisted']['n']:,}."
        )


def _on_classes(figures: Mapping[str, Any]) -> Iterator[Remark]:
    classes = figures["classes"]
    rare, common = sorted((classes["n_positive"], classes["n_negative"]))
    if not rare:
        which = "positive" if classes["n_positive"] == 0 else "negative"
        yield Remark(
            "alarm",
            f"There is no {which} image: nothing can be learned from this data, or measured on it.",
        )
    elif common >= 1.5 * rare:
        which = "positive" if classes["n_positive"] == rare else "negative"
        yield Remark(
            "note",
            f"The classes are out of balance, one {which} image to {common / rare:.2f} others: "
            "choose a treatment (sampler, class-weights, generated), and read AUROC rather than "
            "accuracy.",
        )


def _on_persons(persons: Mapping[str, Any]) -> Iterator[Remark]:
    if persons["in_several_parts"]:
        yield Remark(
            "note",
            f"Numbers of persons that recur in more than one of train, val and test: "
            f"{persons['in_several_parts']:,}. In the "
            "set of Kermany et al. each part was numbered by itself, and this is no leak; in any "
            "other set it is one.",
        )
    if persons["with_several_images"]:
        yield Remark(
            "note",
            f"{persons['with_several_images']:,} of {persons['n']:,} persons have several images "
            f"({persons['images_of_those']:,} in all): splits must keep a person together, as "
            f"training does.",
        )


def _on_duplicates(duplicates: Mapping[str, Any]) -> Iterator[Remark]:
    same, near = duplicates["same_file"], duplicates["near"]
    if same["with_both_labels"]:
        yield Remark(
            "alarm",
            f"Files with both labels, byte for byte: {same['with_both_labels']:,}. One of the two "
            f"is wrong.",
        )
    if same["in_several_parts"]:
        yield Remark(
            "alarm",
            f"Pictures in more than one of train, val and test, byte for byte: "
            f"{same['in_several_parts']:,}. Those parts leak.",
        )
    if same["groups"]:
        yield Remark(
            "note",
            f"Pictures that occur more than once, byte for byte: {same['groups']:,}. Each counts "
            f"as one person.",
        )
    if near["pairs_of_two_persons"]:
        yield Remark(
            "alarm",
            f"Pairs of pictures that are nearly the same and said to be two persons: "
            f"{near['pairs_of_two_persons']:,}. Look at "
            "them below, and join them with --groups near_duplicates.csv if they are one.",
        )
    elif not near["pairs"]:
        yield Remark("good", "No two pictures are nearly the same.")


def _on_metadata(metadata: Mapping[str, Any]) -> Iterator[Remark]:
    ages = metadata["age_years"]
    if ages["set_to_missing"]["n"]:
        stated = ", ".join(sorted({item["stated"] for item in ages["set_to_missing"]["ages"]}))
        yield Remark(
            "note",
            f"Ages that can't be a patient's ({stated}) and count as missing: "
            f"{ages['set_to_missing']['n']:,}.",
        )
    for name, figures in (("sex", metadata["sex"]), ("view", metadata["view_position"])):
        known = {value: item for value, item in figures.items() if value != "not stated"}
        bounds = [item["positive_share_ci95"] for item in known.values()]
        if len(bounds) > 1 and max(low for low, _ in bounds) > min(high for _, high in bounds):
            shares = ", ".join(
                f"{value} {item['positive_share']:.0%}" for value, item in known.items()
            )
            yield Remark(
                "alarm",
                f"The share of positives differs with {name} ({shares}): a model may learn the "
                f"{name} instead.",
            )


def _on_shortcuts(shortcuts: Mapping[str, Any]) -> Iterator[Remark]:
    flagged = {name: item for name, item in shortcuts.items() if item and item["flagged"]}
    for name, item in flagged.items():
        yield Remark(
            "alarm",
            f"{name.capitalize()} alone tells the classes apart with AUROC "
            f"{max(item['auroc'], 1 - item['auroc']):.2f}: "
            "a shortcut that a model can take without looking at a lung.",
        )
    if not flagged:
        yield Remark(
            "good",
            "No plain number (size, aspect, grey level, age) tells the classes apart by itself.",
        )


def _on_lesions(lesions: Mapping[str, Any] | None) -> Iterator[Remark]:
    if lesions and lesions["n"]:
        median = lesions["share_of_image"]["median"]
        yield Remark(
            "note",
            f"The median lesion covers {median:.2%} of its image: small inputs and 7 x 7 maps "
            f"can't show it.",
        )
