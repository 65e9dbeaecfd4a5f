from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats
from sklearn.model_selection import StratifiedGroupKFold

from training.data import DataIndex, IndexRow
from training.data.fold_balance import (
    age_difference,
    balance_lines,
    check_folds,
    chi_squared_p_value,
    ks_p_value,
)
from training.data.split import split_folds


def made_index(persons: int, seed: int, *, images: Sequence[int] = (1, 1, 2, 3)) -> DataIndex:
    """Persons with some images each, a fifth positive, of all ages, sexes and views."""
    rng = np.random.default_rng(seed)
    rows: list[IndexRow] = []
    for person in range(persons):
        age, sex = float(rng.integers(1, 95)), "F" if rng.random() < 0.4 else "M"
        for _ in range(int(rng.choice(images))):
            number = len(rows)
            rows.append(
                IndexRow(
                    image_id=f"i{number}",
                    path=f"i{number}.dcm",
                    sha256=f"{number:064x}",
                    person_group=f"p{person}",
                    label=1 if rng.random() < 0.2 else 0,
                    age_years=age,
                    sex=sex,  # type: ignore[arg-type]
                    view_position="PA" if rng.random() < 0.6 else "AP",
                )
            )
    return DataIndex("made", tuple(rows))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("persons", [250, 400])
def test_every_attribute_of_a_split_holds_its_limit(persons: int, seed: int) -> None:
    index = made_index(persons, seed)

    checks = check_folds(index, split_folds(index, 5, seed))

    assert [check.attribute for check in checks] == ["label", "sex", "view", "age"]
    assert all(check.holds for check in checks)


def test_folds_are_more_alike_than_those_of_scikit_learn() -> None:
    index = made_index(400, seed=1)
    label_N, group_N = index.label_N, [row.person_group for row in index.rows]
    theirs_N = np.zeros(len(index), dtype=np.int64)
    splitter = StratifiedGroupKFold(5, shuffle=True, random_state=1)
    for fold, (_, held_out) in enumerate(splitter.split(label_N, label_N, group_N)):
        theirs_N[held_out] = fold

    ours, theirs = check_folds(index, split_folds(index, 5, seed=1)), check_folds(index, theirs_N)

    assert {check.attribute for check in theirs if check.holds} == {
        "label"
    }  # the one attribute that it looks at
    assert all(check.holds for check in ours)


def test_folds_by_age_are_found_out() -> None:
    index = made_index(200, seed=2)
    by_age_N = np.array([int((row.age_years or 0) > 50) for row in index.rows], dtype=np.int64)

    checks = {check.attribute: check for check in check_folds(index, by_age_N)}

    assert not checks["age"].holds
    assert (checks["age"].p_value or 0) < 1e-6 < (checks["sex"].p_value or 0)
    assert (age_difference(index, by_age_N) or 0) < 1e-6
    assert any(
        "by age" in line and "OVER THE LIMIT" in line for line in balance_lines(index, by_age_N)
    )


@pytest.mark.parametrize("shape", [(2, 2), (5, 2), (3, 3), (5, 8)])
def test_the_chi_squared_test_is_scipys(shape: tuple[int, int]) -> None:
    count_FV = np.random.default_rng(3).integers(1, 40, shape)

    assert chi_squared_p_value(count_FV) == pytest.approx(
        stats.chi2_contingency(count_FV, correction=False).pvalue, rel=1e-9
    )


def test_folds_that_are_all_the_same_are_no_surprise() -> None:
    assert chi_squared_p_value(np.full((4, 3), 7)) == 1.0
    assert chi_squared_p_value(np.full((4, 1), 7)) is None


def test_the_kolmogorov_smirnov_test_is_scipys_limit() -> None:
    rng = np.random.default_rng(4)
    one_N, other_N = rng.normal(size=80), rng.normal(0.3, size=300)

    reach = stats.ks_2samp(one_N, other_N).statistic * np.sqrt(80 * 300 / 380)

    assert ks_p_value(one_N, other_N) == pytest.approx(stats.kstwobign.sf(reach), rel=1e-9)
    assert ks_p_value(one_N, one_N) == 1.0
