"""The parts of the evaluation's page that look closer: by subgroup, with and without TTA, and at
single radiographs.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from training.evaluation.gallery import KINDS
from training.evaluation.subgroups import MIN_POSITIVES
from training.html.document import table, table_row
from training.stats.format import figure_text, interval_text


def subgroup_table(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of figures by age, sex and view position; empty if no image states any."""
    if not entries:
        return ""
    head = table_row("", ("group", "images (positive)", "AUROC", "sensitivity", "specificity"))
    rows = [
        table_row(
            escape(entry["attribute"]),
            [escape(entry["group"]), f"{entry['n']:,} ({entry['n_positive']:,})", *_rates(entry)],
        )
        for entry in entries
    ]
    return (
        f"<section><h2>Subgroups</h2>{table(rows, head=head)}<p class=note>Rates at the default "
        f"operating point. Groups with "
        f"fewer than {MIN_POSITIVES} positives or negatives are counted and not "
        f"measured.</p></section>\n"
    )


def _rates(entry: Mapping[str, Any]) -> list[str]:
    if entry["auroc"] is None:
        return ["too few", "", ""]
    return [
        f"{figure_text(entry, key, interval=False)}<br><small>{interval_text(entry, key)}</small>"
        for key in ("auroc", "sensitivity", "specificity")
    ]


def tta_table(effect: Mapping[str, Any] | None) -> str:
    """Return the table with and without test-time augmentation; empty if it was not run."""
    if effect is None:
        return ""
    rows = [
        table_row(
            "AUROC" if measure == "auroc" else measure,
            [
                _with_bounds(row, "plain"),
                _with_bounds(row, "tta"),
                _with_bounds(row, "difference", sign="+"),
            ],
        )
        for measure, row in effect["measures"].items()
    ]
    head = table_row("", ("plain", f"TTA, policy {escape(effect['policy'])}", "difference, paired"))
    return (
        f"<section><h2>With and without test-time augmentation</h2>{table(rows, head=head)}<p "
        f"class=note>"
        f"{effect['n']:,} images; rates at logit 0 of each reading; 95 % intervals by bootstrap "
        f"over persons.</p></section>\n"
    )


def _with_bounds(row: Mapping[str, Any], key: str, sign: str = "") -> str:
    low, high = row[f"{key}_ci95"]
    return f"{row[key]:{sign}.4f}<br><small>{low:{sign}.3f} to {high:{sign}.3f}</small>"


def gallery(pictures: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """Return the gallery, its JPEG files of `folder` within the page."""
    if not pictures:
        return ""
    parts = []
    for kind, group in groupby(pictures, key=lambda picture: picture["kind"]):
        figures = "".join(_figure(picture, folder) for picture in group)
        parts.append(f"<h3>{escape(KINDS[kind])}</h3><div class=plots>{figures}</div>")
    return (
        f"<section><h2>Gallery</h2><p class=note>Left the radiograph, right the evidence for the "
        f"finding, drawn on one scale for "
        f"every picture. The map shows what moved this model's answer; it does not segment a "
        f"lesion.</p>{''.join(parts)}</section>\n"
    )


def _figure(picture: Mapping[str, Any], folder: Path) -> str:
    data = b64encode((folder / picture["file"]).read_bytes()).decode()
    label = "positive" if picture["label"] else "negative"
    text = f"{escape(picture['image_id'])}: is {label}, p = {picture['probability']:.3f}"
    return (
        f'<figure><img src="data:image/jpeg;base64,{data}" alt="{text}" '
        f'width="100%"><figcaption>{text}</figcaption></figure>'
    )
