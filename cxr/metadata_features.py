"""Age, sex and view position as numbers, for graphs that read them beside the image; what is
unknown is zero.

Shape suffixes: N images, M columns.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from cxr.radiograph import Metadata

COLUMNS = ("age_scaled", "age_known", "sex_m", "sex_f", "view_pa", "view_ap")
"""Age is `(years - 50) / 20`, about -1.5 to 1.5 in adults; all else is 0 or 1.  Another sex or view
counts as unknown."""


def encode_metadata_features(facts: Iterable[Metadata]) -> NDArray[np.float32]:
    """Return `metadata_NM`, float32 [N, M], of what is known about each of N images, in the order
    of `COLUMNS`.
    """
    return np.array([_encode(one) for one in facts], dtype=np.float32).reshape(-1, len(COLUMNS))


def _encode(facts: Metadata) -> tuple[float, ...]:
    age = (0.0, 0.0) if facts.age_years is None else ((facts.age_years - 50.0) / 20.0, 1.0)
    return (
        *age,
        facts.sex == "M",
        facts.sex == "F",
        facts.view_position == "PA",
        facts.view_position == "AP",
    )
