"""Late fusion: age, sex and view position as numbers beside the image, and what is unknown as zeros.

The network adds `w . metadata` to the image's own logit, so what is unknown adds nothing.

Shape suffixes: N images, M columns.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.datasets.index import IndexRow

COLUMNS = ("age_scaled", "age_known", "sex_m", "sex_f", "view_pa", "view_ap")
"""Age is `(years - 50) / 20`, about -1.5 to 1.5 in adults; all else is 0 or 1.  Another sex or view counts as unknown."""

_FACT_M = np.array([0, 0, 1, 1, 2, 2])
"""Which fact each column tells of: age, sex or view."""

_FORGOTTEN = 0.3
"""Share of the facts that training takes away, so that a network knows what to make of their absence."""


def encode(rows: Sequence[IndexRow]) -> NDArray[np.float32]:
    """Give `metadata_NM`, float32, of the rows of an index."""
    return np.array([_encode(row) for row in rows], dtype=np.float32).reshape(-1, len(COLUMNS))


def forget_some(metadata_NM: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Take away each fact of each image by chance."""
    forgotten_NF = rng.random((len(metadata_NM), 3)) < _FORGOTTEN
    return np.where(forgotten_NF[:, _FACT_M], np.float32(0), metadata_NM)


def _encode(row: IndexRow) -> tuple[float, ...]:
    age = (0.0, 0.0) if row.age_years is None else ((row.age_years - 50.0) / 20.0, 1.0)
    return (*age, row.sex == "M", row.sex == "F", row.view_position == "PA", row.view_position == "AP")
