"""The `labels` layout: a folder with `images/` and a table `labels.csv`, one line an image.

Columns, in any order; only `file` and the finding are required, and others are passed over:

    file            path of the image, relative to the folder
    <finding>       0 or 1, or how likely the finding is (0 to 1) if the label is in doubt
    person_group    images of one person; without it each image is its own person
    weight          of the image in the loss; 1 if empty
    source          where the image came from; `--measure-on` names sources
    label_quality   `expert` or `report-mined`; whoever says nothing is taken for an expert
    finding_labels  what else the report names, with `|` between; empty if nobody knows
    age, sex, view  years, M or F, PA or AP
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from cxr.bundle import file_sha256
from cxr.radiograph import Sex, View
from training.data.index import DataError, DataIndex, IndexRow, Label, join_groups, read_table
from training.progress import progress_bar

TABLE = "labels.csv"
LAYOUT = "labels"

_EXPERT = "expert"
_QUALITIES = ("", _EXPERT, "report-mined")
_SEXES = ("M", "F", "O")
_VIEWS = ("PA", "AP", "LATERAL")


def find_table(data_dir: Path) -> Path | None:
    """Return the table of a folder of this layout, or None."""
    path = data_dir / TABLE
    return path if path.is_file() else None


def load(data_dir: Path, table: Path, finding: str | None) -> DataIndex:
    """Index the images that the table names; those without a file are listed in `missing`.

    Raises `DataError` if a column is missing, or a line makes no sense.
    """
    lines = read_table(table)
    if finding is None:
        raise DataError(f"{data_dir} has a {TABLE}: say which of its columns is the finding")
    if not lines or "file" not in lines[0] or finding not in lines[0]:
        raise DataError(f"{table} needs the columns file and {finding}, and at least one image")
    rows: list[IndexRow] = []
    missing: list[str] = []
    for number, line in enumerate(progress_bar(iterable=lines, desc="index", unit="file"), start=2):
        path = _path_in(data_dir, line["file"], f"{table} line {number}")
        if path.is_file():
            rows.append(_row(path, line, finding, f"{table} line {number}"))
        else:
            missing.append(line["file"])
    _refuse_repeated(rows, table)
    ordered = sorted(rows, key=lambda row: row.path)
    return DataIndex(LAYOUT, join_groups(ordered), missing=tuple(sorted(missing)))


def _path_in(data_dir: Path, name: str, place: str) -> Path:
    """Return the path of a file that must lie in the data folder."""
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(f"{place}: file must be a path inside the data folder")
    return data_dir / name


def _row(path: Path, line: Mapping[str, str], finding: str, place: str) -> IndexRow:
    target = _number(line[finding], f"{place}, column {finding}")
    if not 0.0 <= target <= 1.0:
        raise DataError(f"{place}: {finding} must lie between 0 and 1")
    quality = line.get("label_quality", "")
    if quality not in _QUALITIES:
        raise DataError(f"{place}: label_quality is {' or '.join(_QUALITIES[1:])}")
    weight = line.get("weight", "")
    label: Label = 1 if target >= 0.5 else 0
    image_id = Path(line["file"]).stem
    return IndexRow(
        image_id=image_id,
        path=Path(line["file"]).as_posix(),
        sha256=file_sha256(path),
        person_group=line.get("person_group") or f"image-{image_id}",
        label=label,
        age_years=_number(line["age"], f"{place}, column age") if line.get("age") else None,
        sex=cast("Sex", line["sex"]) if line.get("sex") in _SEXES else None,
        view_position=cast("View", line["view"]) if line.get("view") in _VIEWS else None,
        source=line.get("source", ""),
        target=None if target in (0.0, 1.0) else target,
        weight=_number(weight, f"{place}, column weight") if weight else 1.0,
        is_doubtful=quality not in ("", _EXPERT),
        other_findings=line.get("finding_labels", ""),
    )


def _number(text: str, place: str) -> float:
    try:
        number = float(text)
    except ValueError as exc:
        raise DataError(f"{place}: no number") from exc
    if not math.isfinite(number) or number < 0.0:
        raise DataError(f"{place}: a number of at least 0 is needed")
    return number


def _refuse_repeated(rows: list[IndexRow], table: Path) -> None:
    seen: set[str] = set()
    for row in rows:
        if row.path in seen:
            raise DataError(f"{table} names {row.path} twice; leave one line")
        seen.add(row.path)
