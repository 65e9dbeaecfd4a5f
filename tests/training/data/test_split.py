from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from training.data import DataIndex, IndexRow
from training.data.split import SplitError, refuse_leaks, split_folds


@pytest.fixture(scope="module")
def index() -> DataIndex:
    """1 000 images of about 400 persons, one to nine each, a quarter positive, with age, sex and
    view."""
    rng = np.random.default_rng(3)
    rows: list[IndexRow] = []
    while len(rows) < 1000:
        person, age = len(rows), float(rng.integers(1, 90))
        for _ in range(int(rng.geometric(0.4)) % 9 + 1):
            row = IndexRow(
                image_id=f"i{len(rows)}",
                path=f"i{len(rows)}.dcm",
                sha256=f"{len(rows):064x}",
                person_group=f"p{person}",
                label=1 if rng.random() < 0.25 else 0,
                age_years=age,
                sex="F" if person % 2 else "M",
                view_position="PA" if rng.random() < 0.7 else "AP",
            )
            rows.append(row)
    return DataIndex("made", tuple(rows))


def test_no_person_lies_in_two_folds(index: DataIndex) -> None:
    fold_N = split_folds(index, 5, seed=1)

    places: dict[str, set[int]] = {}
    for row, fold in zip(index.rows, fold_N.tolist(), strict=True):
        places.setdefault(row.person_group, set()).add(fold)
    assert {len(folds) for folds in places.values()} == {1}
    assert set(fold_N.tolist()) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("label", lambda row: row.label == 1),
        ("sex", lambda row: row.sex == "F"),
        ("view", lambda row: row.view_position == "AP"),
        ("old", lambda row: row.age_years >= 65),
        ("positive women", lambda row: row.label == 1 and row.sex == "F"),
    ],
)
def test_folds_are_alike_in_everything_that_is_known(
    index: DataIndex, name: str, read: Callable[[IndexRow], bool]
) -> None:
    fold_N, value_N = split_folds(index, 5, seed=1), np.array([read(row) for row in index.rows])

    count_F = np.array([value_N[fold_N == fold].sum() for fold in range(5)])

    assert np.ptp([(fold_N == fold).sum() for fold in range(5)]) <= 4
    assert np.abs(count_F - value_N.sum() / 5).max() <= 4, name


def test_the_same_seed_gives_the_same_folds_and_another_one_others(index: DataIndex) -> None:
    def folds(seed: int) -> NDArray[np.int64]:
        return split_folds(index, 5, seed)

    assert (folds(1) == folds(1)).all()
    assert (folds(1) != folds(2)).any()


def test_data_without_age_sex_and_view_is_balanced_by_label(index: DataIndex) -> None:
    bare = DataIndex(
        "bare",
        tuple(replace(row, age_years=None, sex=None, view_position=None) for row in index.rows),
    )

    fold_N = split_folds(bare, 4, seed=1)

    assert np.ptp([bare.label_N[fold_N == fold].sum() for fold in range(4)]) <= 2


def test_a_person_in_two_folds_is_refused(index: DataIndex) -> None:
    fold_N = split_folds(index, 5, seed=1)
    group = next(
        row.person_group
        for row in index.rows
        if sum(r.person_group == row.person_group for r in index.rows) > 1
    )
    fold_N[next(i for i, row in enumerate(index.rows) if row.person_group == group)] += 1

    with pytest.raises(SplitError, match=f"group {group} lies in folds"):
        refuse_leaks(index, fold_N)


def test_a_file_in_two_folds_is_refused() -> None:
    row = IndexRow(image_id="a", path="a", sha256="0" * 64, person_group="p", label=0)
    twins = DataIndex("twins", (row, replace(row, image_id="b", path="b", person_group="q")))

    with pytest.raises(SplitError, match="file 0000"):
        refuse_leaks(twins, np.array([0, 1]))


def test_too_few_persons_for_the_folds_are_refused(index: DataIndex) -> None:
    with pytest.raises(SplitError, match="fewer person groups than 5 folds"):
        split_folds(index.subset(range(4)), 5, seed=1)
