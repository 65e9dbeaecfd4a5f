"""The columns of the Parquet files: one row for each file of the source."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import pyarrow as pa

UNREADABLE = "unreadable"
"""The source did not give the file, or this machine could not read it now; a later run tries
again."""


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of one file; a column is null if it does not apply."""

    path: str
    fingerprint: str
    study_uid: str | None = None
    series_uid: str | None = None
    instance_uid: str | None = None
    num_bytes: int | None = None
    sha256: str | None = None
    probability: float | None = None
    label: str | None = None
    logit: float | None = None
    threshold: float | None = None
    operating_point: str | None = None
    thresholds: list[tuple[str, float]] = field(default_factory=list)
    age_years: float | None = None
    sex: str | None = None
    view_position: str | None = None
    novelty: float | None = None
    is_novel: bool | None = None
    warnings: list[str] = field(default_factory=list)
    problem: str | None = None
    problem_detail: str | None = None
    model_sha256: str | None = None
    engine: str | None = None
    precision: str | None = None


COLUMN_TYPES: dict[str, pa.DataType] = {
    "path": pa.string(),
    "fingerprint": pa.string(),
    "study_uid": pa.string(),
    "series_uid": pa.string(),
    "instance_uid": pa.string(),
    "num_bytes": pa.int64(),
    "sha256": pa.string(),
    "probability": pa.float64(),
    "label": pa.string(),
    "logit": pa.float32(),
    "threshold": pa.float64(),
    "operating_point": pa.string(),
    "thresholds": pa.map_(pa.string(), pa.float64()),
    "age_years": pa.float64(),
    "sex": pa.string(),
    "view_position": pa.string(),
    "novelty": pa.float32(),
    "is_novel": pa.bool_(),
    "warnings": pa.list_(pa.string()),
    "problem": pa.string(),
    "problem_detail": pa.string(),
    "model_sha256": pa.string(),
    "engine": pa.string(),
    "precision": pa.string(),
}
SCHEMA = pa.schema(list(COLUMN_TYPES.items()))


def make_table(rows: Sequence[Row]) -> pa.Table:
    """Return rows as an Arrow table of `SCHEMA`."""
    columns = {column.name: [getattr(row, column.name) for row in rows] for column in fields(Row)}
    return pa.table(columns, schema=SCHEMA)
