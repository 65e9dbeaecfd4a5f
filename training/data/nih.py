"""NIH ChestX-ray14 as its owner gives it: `Data_Entry_2017*.csv` next to `images*/`.

Any of its 14 findings may be the task.  The labels were mined from radiology reports, so they are
marked as doubtful (Wang et al., ChestX-ray8, CVPR 2017).
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from cxr.bundle import file_sha256
from cxr.radiograph import Sex, View
from training.data.index import DataError, DataIndex, IndexRow, join_groups, read_table
from training.progress import progress_bar

LAYOUT = "nih"
FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis",
    "Hernia", "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip

_COLUMNS = ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "View Position")
_MAX_AGE_YEARS = 120
"""Some entries of the table state over 400 years."""

_SEXES: dict[str, Sex] = {"M": "M", "F": "F"}
_VIEWS: dict[str, View] = {"PA": "PA", "AP": "AP"}


def find_table(data_dir: Path) -> Path | None:
    """Return the table of a folder of this layout, or None. Raise `DataError` if there are
    several.
    """
    tables = sorted(data_dir.glob("Data_Entry_2017*.csv"))
    if len(tables) > 1:
        raise DataError(f"{data_dir} has several tables of NIH: {', '.join(map(str, tables))}")
    return tables[0] if tables else None


def load(data_dir: Path, table: Path, finding: str | None) -> DataIndex:
    """Index the images that the table names; those without a file are listed in `missing`.

    Raise `DataError` if `finding` is none of the 14, if a column is missing, or if no image of the
    table is there.
    """
    known = {name.lower(): name for name in FINDINGS}
    column = known.get((finding or "").replace(" ", "_").lower())
    if column is None:
        raise DataError(f"{data_dir} holds ChestX-ray14: name one of {', '.join(FINDINGS)}")
    lines = read_table(table)
    if not lines or (lacking := [name for name in _COLUMNS if name not in lines[0]]):
        raise DataError(f"{table} needs the columns {', '.join(lacking if lines else _COLUMNS)}")
    paths = {path.name: path for path in _images(data_dir)}
    present = [line for line in lines if line["Image Index"] in paths]
    if not present:
        raise DataError(f"{table} names no image that lies in {data_dir}/images*/")
    rows = [
        _row(line, paths[line["Image Index"]], data_dir, column)
        for line in progress_bar(iterable=present, desc="index", unit="file")
    ]
    missing = [line["Image Index"] for line in lines if line["Image Index"] not in paths]
    ordered = sorted(rows, key=lambda row: row.path)
    return DataIndex(LAYOUT, join_groups(ordered), missing=tuple(sorted(missing)))


def _images(data_dir: Path) -> Iterator[Path]:
    """Yield the images of `images/` and of `images_001/images/` to `images_012/images/`."""
    for folder in sorted(data_dir.glob("images*")):
        yield from (path for path in folder.rglob("*.png") if path.is_file())


def _row(line: Mapping[str, str], path: Path, data_dir: Path, column: str) -> IndexRow:
    findings = line["Finding Labels"].split("|")
    return IndexRow(
        image_id=path.stem,
        path=path.relative_to(data_dir).as_posix(),
        sha256=file_sha256(path),
        person_group=f"nih{int(line['Patient ID']):08d}",
        label=1 if column in findings else 0,
        age_years=_age_years(line["Patient Age"]),
        sex=_SEXES.get(line.get("Patient Sex") or line.get("Patient Gender") or ""),
        view_position=_VIEWS.get(line["View Position"]),
        source=LAYOUT,
        is_doubtful=True,
        other_findings=line["Finding Labels"],
    )


def _age_years(text: str) -> float | None:
    """Read an age: `58` or, in early editions, `058Y`; None if no person can be that old."""
    match = re.fullmatch(r"0*(\d+)([YMD]?)", text)
    if match is None:
        return None
    per_year = {"": 1, "Y": 1, "M": 12, "D": 365}[match[2]]
    years = int(match[1]) / per_year
    return years if years <= _MAX_AGE_YEARS else None
