"""`training explore`: from a data folder to explore.json, report.html and near_duplicates.csv."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from training.data import DataError, DataIndex, class_folders, load_index, siim
from training.data.fold_balance import balance_lines
from training.data.groups import COLUMNS
from training.data.index import read_table, write_table
from training.data.split import SplitError, split_folds
from training.data.system_files import count_stubs
from training.explore.data_warnings import remarks
from training.explore.duplicates import NearPair, clusters, near_pairs
from training.explore.figures import Figures, figures_of
from training.explore.lesions import Lesions, measure_lesions
from training.explore.page import page
from training.explore.read_files import Scan, scan_files
from training.explore.survey_result import Survey
from training.progress import progress_bar

FOLDS = 5
"""Folds of the split that the report tries: the default of the recipes."""


def explore(
    data_dir: Path, out_dir: Path, *, groups: Path | None = None, finding: str | None = None
) -> Figures:
    """Survey a data folder. Write explore.json, report.html and, if pictures are nearly the same,
    near_duplicates.csv.

    near_duplicates.csv has one group for each cluster of pictures. After a person has checked it,
    it is a table for `--groups`. `finding` is the column to read if a table has several.

    Returns:
        What explore.json holds.

    Raises:
        DataError: the folder has no known layout, or nothing in it can be read.
    """
    survey = _survey(data_dir, groups, finding)
    figures = figures_of(survey)
    figures["folds"] = _try_split(survey.index.subset(_to_train_on(survey, data_dir)))
    figures["remarks"] = [
        {"level": remark.level, "text": remark.text} for remark in remarks(figures)
    ]
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / "explore.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    (out_dir / "report.html").write_text(page(figures, survey, data_dir), encoding="utf-8")
    _write_clusters(out_dir / "near_duplicates.csv", survey)
    print("\n".join(_lines(figures, out_dir)))
    return figures


def _survey(data_dir: Path, groups: Path | None, finding: str | None) -> Survey:
    index = load_index(data_dir, purpose="explore", groups=groups, finding=finding)
    paths = [data_dir / row.path for row in index.rows]
    scans = tuple(
        progress_bar(iterable=scan_files(paths), total=len(paths), desc="read", unit="file")
    )
    rows = tuple(
        replace(
            row,
            age_years=scan.metadata.age_years,
            sex=scan.metadata.sex,
            view_position=scan.metadata.view_position,
        )
        for row, scan in zip(index.rows, scans, strict=True)
    )
    if not any(scan.readable for scan in scans):
        raise DataError(
            f"{data_dir}: no image can be read; the first one: {scans[0].code}: {scans[0].detail}"
        )
    near, total = _near(index, scans)
    name = data_dir.resolve().name
    table = siim.find_table(data_dir)
    return Survey(
        name,
        replace(index, rows=rows),
        scans,
        len(read_table(table)) if table else None,
        _lesions(table, index, scans) if table else None,
        near,
        total,
        count_stubs(data_dir),
    )


def _near(index: DataIndex, scans: tuple[Scan, ...]) -> tuple[tuple[NearPair, ...], int]:
    """Compare what could be read, of several copies of a file the first; positions are those of the
    index.
    """
    first = {row.sha256: position for position, row in reversed(list(enumerate(index.rows)))}
    thumbs = [
        (i, thumb_HW) for i in sorted(first.values()) if (thumb_HW := scans[i].thumb_HW) is not None
    ]
    pairs, total = near_pairs(np.stack([thumb_HW for _, thumb_HW in thumbs]))
    position = [position for position, _ in thumbs]
    return tuple(
        NearPair(position[pair.one], position[pair.other], pair.correlation) for pair in pairs
    ), total


def _lesions(table: Path, index: DataIndex, scans: tuple[Scan, ...]) -> Lesions:
    sizes = {
        row.image_id: (scan.rows, scan.columns)
        for row, scan in zip(index.rows, scans, strict=True)
        if scan.readable
    }
    return measure_lesions(siim.read_runs(table), sizes)


def _to_train_on(survey: Survey, data_dir: Path) -> list[int]:
    """Return the positions of the readable images that training would read: no test/ if there is a
    train/.
    """
    try:
        roots = class_folders.find_roots(data_dir, "train")
    except DataError:  # there is a test/ only
        roots = ()
    paths = [data_dir / row.path for row in survey.index.rows]
    return [
        i
        for i in survey.readable_N.tolist()
        if not roots or any(paths[i].is_relative_to(root) for root in roots)
    ]


def _try_split(index: DataIndex) -> list[str]:
    """Try the split that training would make, and return its balance."""
    try:
        return balance_lines(index, split_folds(index, FOLDS, seed=1))
    except SplitError as exc:
        return [f"no split into {FOLDS} folds: {exc}"]


def _write_clusters(path: Path, survey: Survey) -> None:
    path.unlink(missing_ok=True)
    if survey.near:
        rows = survey.index.rows
        joined = enumerate(clusters(survey.near), start=1)
        write_table(
            path,
            COLUMNS,
            [[rows[i].image_id, f"alike{number}"] for number, cluster in joined for i in cluster],
        )


def _lines(figures: Figures, out_dir: Path) -> Iterator[str]:
    signs = {"alarm": "!!", "note": " -", "good": "ok"}
    yield from (f"{signs[remark['level']]} {remark['text']}" for remark in figures["remarks"])
    yield from figures["folds"]
    yield f"report: {out_dir / 'report.html'}"
