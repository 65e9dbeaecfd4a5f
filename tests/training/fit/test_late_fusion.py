from dataclasses import replace

import numpy as np
import pytest

from cxr.metadata_features import COLUMNS
from training.data.index import IndexRow
from training.fit.late_fusion import encode, forget_some

BARE = IndexRow(image_id="a", path="a.dcm", sha256="0" * 64, person_group="p", label=0)


def columns_of(row: IndexRow) -> dict[str, float]:
    (metadata_M,) = encode([row])
    return dict(zip(COLUMNS, metadata_M.tolist(), strict=True))


def test_what_the_file_states_becomes_numbers() -> None:
    columns = columns_of(replace(BARE, age_years=70.0, sex="F", view_position="AP"))

    assert columns == {
        "age_scaled": 1.0,
        "age_known": 1,
        "sex_m": 0,
        "sex_f": 1,
        "view_pa": 0,
        "view_ap": 1,
    }


def test_an_age_of_fifty_differs_from_an_unknown_one() -> None:
    assert columns_of(replace(BARE, age_years=50.0)) != columns_of(BARE)


@pytest.mark.parametrize("row", [BARE, replace(BARE, sex="O", view_position="LATERAL")])
def test_what_is_unknown_or_of_no_column_is_zero(row: IndexRow) -> None:
    assert set(columns_of(row).values()) == {0.0}


def test_no_rows_are_an_empty_table() -> None:
    assert encode([]).shape == (0, len(COLUMNS))


def test_training_forgets_three_features_in_ten_and_each_of_them_whole() -> None:
    forgotten_NM = (
        forget_some(np.ones((4000, len(COLUMNS)), np.float32), np.random.default_rng(1)) == 0
    )

    assert forgotten_NM.mean(axis=0) == pytest.approx(0.3, abs=0.03)
    for first in (0, 2, 4):
        assert (forgotten_NM[:, first] == forgotten_NM[:, first + 1]).all()
    assert (forgotten_NM[:, 0] != forgotten_NM[:, 2]).any()
