"""Late fusion: age, sex and view position as metadata features; unknown values are zeros.

The network adds `w . metadata` to the image's own logit, so unknown values add nothing.

Shape suffixes: N images, M columns.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cxr.metadata_features import encode_metadata_features
from cxr.radiograph import Metadata
from training.data.index import IndexRow

_VALUE_M = np.array([0, 0, 1, 1, 2, 2])
"""The value that each column belongs to: age, sex or view."""

_FORGOTTEN = 0.3
"""Share of the metadata that training takes away, so that a network knows what to make of its
absence."""


def encode(rows: Sequence[IndexRow]) -> NDArray[np.float32]:
    """Return `metadata_NM`, float32, of the rows of an index, as `cxr.metadata_features` writes it
    for serving.
    """
    return encode_metadata_features(
        Metadata(row.age_years, row.sex, row.view_position) for row in rows
    )


def forget_some(metadata_NM: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Drop each metadata value of each image at random."""
    forgotten_NF = rng.random((len(metadata_NM), 3)) < _FORGOTTEN
    return np.where(forgotten_NF[:, _VALUE_M], np.float32(0), metadata_NM)
