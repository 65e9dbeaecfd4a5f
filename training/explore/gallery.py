"""Choose the pictures that the data report shows, the same ones each time.

Shape suffixes: N images, K chosen ones, H rows, W columns, P pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.siim import decode_runs
from training.explore.duplicates import NearPair
from training.explore.pictures import picture
from training.explore.survey_result import Survey

SHOWN = 8
_SHOWN_PAIRS = 6
_SEED = 20261123


@dataclass(frozen=True, slots=True)
class Shown:
    """One picture with what is said under it."""

    image_id: str
    uri: str
    caption: str


def samples_of_class(
    survey: Survey, data_dir: Path, label: int, runs: dict[str, list[str]]
) -> list[Shown]:
    """Show a few images of a class: at random or, if lesions are known, from the smallest lesion to
    the largest.
    """
    positions = [i for i in survey.readable_N if survey.index.rows[i].label == label]
    shares = survey.lesions.share_by_image if survey.lesions else {}
    if label == 1 and shares:
        positions.sort(key=lambda i: shares.get(survey.index.rows[i].image_id, 0.0))
        chosen = [positions[i] for i in _evenly(len(positions), SHOWN)]
    else:
        rng = np.random.default_rng([_SEED, label])
        chosen = rng.permutation(np.array(positions, dtype=np.int64))[:SHOWN].tolist()
    return [_show(survey, data_dir, i, _caption(survey, i, shares), runs) for i in chosen]


def least_typical(survey: Survey, data_dir: Path) -> list[Shown]:
    """Show the images that are least like the mean of all: turned, cropped, inverted, or no chest
    at all.
    """
    thumb_NP = np.stack(
        [scan.thumb_HW.ravel() for _, scan in survey.readable() if scan.thumb_HW is not None]
    ).astype(np.float32)
    thumb_NP -= thumb_NP.mean(axis=1, keepdims=True)
    likeness_N = (thumb_NP @ thumb_NP.mean(axis=0)) / np.maximum(
        np.linalg.norm(thumb_NP, axis=1), 1e-3
    )
    chosen = survey.readable_N[np.argsort(likeness_N, kind="stable")[:SHOWN]]
    return [
        _show(
            survey, data_dir, int(i), "positive" if survey.index.rows[i].label else "negative", {}
        )
        for i in chosen
    ]


def near_pairs_shown(survey: Survey, data_dir: Path) -> Iterator[tuple[Shown, Shown, str]]:
    """Show the pairs that matter most: said to be two persons first, then the most alike."""
    rows = survey.index.rows

    def person_is_one(pair: NearPair) -> bool:
        return rows[pair.one].person_group == rows[pair.other].person_group

    for pair in sorted(survey.near, key=lambda pair: (person_is_one(pair), -pair.correlation))[
        :_SHOWN_PAIRS
    ]:
        said = "one person" if person_is_one(pair) else "said to be two persons"
        one, other = (
            _show(survey, data_dir, i, "positive" if rows[i].label else "negative", {})
            for i in (pair.one, pair.other)
        )
        yield one, other, f"correlation {pair.correlation:.3f}, {said}"


def mean_images(survey: Survey) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean thumbnails of the negative and the positive images; black if a class has no
    image.
    """
    means = []
    for label in (0, 1):
        thumbs = [
            scan.thumb_HW
            for row, scan in survey.readable()
            if row.label == label and scan.thumb_HW is not None
        ]
        means.append(np.mean(np.stack(thumbs), axis=0) if thumbs else np.zeros((1, 1)))
    return means[0], means[1]


def _show(
    survey: Survey, data_dir: Path, position: int, caption: str, runs: dict[str, list[str]]
) -> Shown:
    row, scan = survey.index.rows[position], survey.scans[position]
    texts = runs.get(row.image_id)
    mask_HW = decode_runs(texts, scan.rows, scan.columns) if texts else None
    return Shown(row.image_id, picture(data_dir / row.path, mask_HW), caption)


def _caption(survey: Survey, position: int, shares: dict[str, float]) -> str:
    row, scan = survey.index.rows[position], survey.scans[position]
    states = [
        "" if row.age_years is None else f"{row.age_years:g} years",
        row.sex or "",
        row.view_position or "",
        f"{scan.columns} x {scan.rows}",
        f"lesion {shares[row.image_id]:.2%}" if row.image_id in shares else "",
    ]
    return ", ".join(state for state in states if state)


def _evenly(count: int, wanted: int) -> list[int]:
    return (
        np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int)).tolist()
        if count
        else []
    )
