"""Compute the figures of explore.json from an index and its scans.

Shape suffixes: N images.
"""

from collections import Counter, defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.index import DataIndex, IndexRow
from training.explore.picture_figures import MAX_LISTED, duplicate_figures, lesion_figures
from training.explore.survey_result import Floats, Survey, part_of, plain_numbers
from training.stats.metrics import auroc, delong_interval, wilson_interval

Figures = dict[str, Any]

SHORTCUT_AUROC = 0.1
"""Distance from 0.5 of a plain number's AUROC that is flagged, if its interval excludes 0.5."""


def figures_of(survey: Survey) -> Figures:
    """Return the figures of explore.json."""
    return {
        "data": {
            "name": survey.name,
            "layout": survey.index.name,
            "sha256": survey.index.fingerprint,
        },
        "files": _files(survey),
        "classes": _classes(survey.index),
        "parts": _parts(survey.index),
        "persons": _persons(survey.index),
        "metadata": {
            "age_years": _ages(survey),
            "sex": _shares(survey, "sex"),
            "view_position": _shares(survey, "view_position"),
        },
        "sizes": _sizes(survey),
        "shortcuts": _shortcuts(survey),
        "duplicates": duplicate_figures(survey),
        "lesions": None if survey.lesions is None else lesion_figures(survey.lesions),
        "warnings": dict(
            Counter(code for scan in survey.scans for code in scan.warnings).most_common()
        ),
    }


def _files(survey: Survey) -> Figures:
    unreadable = [
        {
            "image_id": row.image_id,
            "path": row.path,
            "label": row.label,
            "code": scan.code,
            "detail": scan.detail,
        }
        for row, scan in zip(survey.index.rows, survey.scans, strict=True)
        if not scan.readable
    ]
    return {
        "table_rows": survey.table_rows,
        "listed_images": len(survey.index) + len(survey.index.missing),
        "files": len(survey.index),
        "readable": len(survey.readable_N),
        "bytes": sum(scan.size_bytes for scan in survey.scans),
        "unreadable": unreadable,
        "missing": {
            "n": len(survey.index.missing),
            "image_ids": list(survey.index.missing[:MAX_LISTED]),
        },
        "stubs": survey.stubs,
        "unlisted": {
            "n": len(survey.index.unlisted),
            "paths": list(survey.index.unlisted[:MAX_LISTED]),
        },
    }


def _classes(index: DataIndex) -> Figures:
    positive = int(index.label_N.sum())
    return {
        "n": len(index),
        "n_positive": positive,
        "n_negative": len(index) - positive,
        "positive_share": positive / len(index),
        "positive_share_ci95": wilson_interval(positive, len(index)),
    }


def _parts(index: DataIndex) -> Figures:
    labels = defaultdict(list)
    for row in index.rows:
        labels[part_of(row)].append(row.label)
    return {
        part: {"n": len(found), "n_positive": sum(found)}
        for part, found in sorted(labels.items())
        if part
    }


def _persons(index: DataIndex) -> Figures:
    rows_of: defaultdict[str, list[IndexRow]] = defaultdict(list)
    for row in index.rows:
        rows_of[row.person_group].append(row)
    counts = Counter(len(rows) for rows in rows_of.values())
    several = {group: rows for group, rows in rows_of.items() if len(rows) > 1}
    return {
        "n": len(rows_of),
        "with_several_images": len(several),
        "images_of_those": sum(len(rows) for rows in several.values()),
        "most_images": max(counts),
        "persons_by_images": {str(images): counts[images] for images in sorted(counts)},
        "with_both_labels": sum(len({row.label for row in rows}) == 2 for rows in several.values()),
        "in_several_parts": sum(
            len({part_of(row) for row in rows}) > 1 for rows in several.values()
        ),
    }


def _ages(survey: Survey) -> Figures:
    years_N = plain_numbers(survey)["age"][1]
    implausible = [
        {"image_id": row.image_id, "stated": scan.implausible_age}
        for row, scan in survey.readable()
        if scan.implausible_age
    ]
    figures: Figures = {"stated": len(years_N), "missing": len(survey.readable_N) - len(years_N)}
    figures |= {
        "set_to_missing": {"n": len(implausible), "ages": implausible[:MAX_LISTED]},
        "quantiles": None,
        "unusual": None,
    }
    if len(years_N):
        low, first, median, third, high = (
            float(value) for value in np.quantile(years_N, [0, 0.25, 0.5, 0.75, 1])
        )
        fence = [max(0.0, first - 1.5 * (third - first)), third + 1.5 * (third - first)]
        beyond_N = years_N[(years_N < fence[0]) | (years_N > fence[1])]
        figures["quantiles"] = {"min": low, "q1": first, "median": median, "q3": third, "max": high}
        figures["unusual"] = {
            "n": len(beyond_N),
            "outside": fence,
            "ages": sorted(beyond_N.tolist())[:MAX_LISTED],
        }
    return figures


def _shares(survey: Survey, name: str) -> Figures:
    """Count the values of an attribute, and the share of positives among the images of each."""
    labels: defaultdict[str, list[int]] = defaultdict(list)
    for row, _ in survey.readable():
        labels[getattr(row, name) or "not stated"].append(row.label)
    return {
        value: {
            "n": len(found),
            "n_positive": sum(found),
            "positive_share": sum(found) / len(found),
            "positive_share_ci95": wilson_interval(sum(found), len(found)),
        }
        for value, found in sorted(labels.items(), key=lambda item: -len(item[1]))
    }


def _sizes(survey: Survey) -> Figures:
    sizes = Counter((scan.columns, scan.rows) for _, scan in survey.readable())
    common = [
        {"columns": columns, "rows": rows, "n": n} for (columns, rows), n in sizes.most_common(10)
    ]
    return {"different": len(sizes), "most_common": common}


def _shortcuts(survey: Survey) -> Figures:
    """Measure how well each plain number alone separates the classes; None if it is the same in all
    images.
    """
    return {
        name: _alone(label_N, value_N) for name, (label_N, value_N) in plain_numbers(survey).items()
    }


def _alone(label_N: NDArray[np.int_], value_N: Floats) -> Figures | None:
    area = auroc(label_N, value_N) if len(value_N) and np.ptp(value_N) else None
    if area is None:
        return None
    low, high = delong_interval(label_N, value_N) or (0.0, 1.0)
    flagged = abs(area - 0.5) >= SHORTCUT_AUROC and not low <= 0.5 <= high
    medians = {
        name: float(np.median(value_N[label_N == label]))
        for name, label in (("negative", 0), ("positive", 1))
    }
    return {"auroc": area, "auroc_ci95": [low, high], "flagged": flagged, "median": medians}
