"""Figures of explore.json that come from the pictures: duplicates and lesions.

Shape suffixes: N images.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from training.data.index import IndexRow
from training.explore.duplicates import NearPair, clusters, same_files
from training.explore.lesions import SIZES, Lesions
from training.explore.survey_result import Survey, part_of

Figures = dict[str, Any]

MAX_LISTED = 200
"""Entries of a list in explore.json at most. The count in `n` is complete."""


def duplicate_figures(survey: Survey) -> Figures:
    """Return how many pictures are the same, or nearly, and which."""
    rows = survey.index.rows
    exact = same_files(row.sha256 for row in rows)

    def differ(read: Callable[[IndexRow], object]) -> int:
        return sum(read(rows[pair.one]) != read(rows[pair.other]) for pair in survey.near)

    return {
        "same_file": {
            "groups": len(exact),
            "images": sum(map(len, exact)),
            "with_both_labels": sum(len({rows[i].label for i in group}) == 2 for group in exact),
            "in_several_parts": sum(len({part_of(rows[i]) for i in group}) > 1 for group in exact),
            "image_ids": [[rows[i].image_id for i in group] for group in exact[:MAX_LISTED]],
        },
        "near": {
            "pairs": survey.near_total,
            "clusters": len(clusters(survey.near)),
            "pairs_of_two_persons": differ(lambda row: row.person_group),
            "pairs_of_two_labels": differ(lambda row: row.label),
            "pairs_across_parts": differ(part_of),
            "most_alike": [_pair(rows, pair) for pair in survey.near[:MAX_LISTED]],
        },
    }


def _pair(rows: Sequence[IndexRow], pair: NearPair) -> Figures:
    one, other = rows[pair.one], rows[pair.other]
    return {
        "image_ids": [one.image_id, other.image_id],
        "correlation": pair.correlation,
        "same_person": one.person_group == other.person_group,
        "same_label": one.label == other.label,
    }


def lesion_figures(lesions: Lesions) -> Figures:
    """Return how many lesions there are, and how large they are."""
    share_N = np.array(list(lesions.share_by_image.values()))
    quantiles: Mapping[str, float | None] = dict.fromkeys(("p5", "median", "p95"))
    if len(share_N):
        quantiles = dict(
            zip(quantiles, np.quantile(share_N, [0.05, 0.5, 0.95]).tolist(), strict=True)
        )
    return {
        "n": len(share_N),
        "with_several_masks": sum(masks > 1 for masks in lesions.masks),
        "share_of_image": quantiles,
        "sizes": {
            name: int(np.sum((share_N >= low) & (share_N < high)))
            for name, (low, high) in SIZES.items()
        },
    }
