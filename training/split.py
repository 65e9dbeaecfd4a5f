"""Patient-disjoint folds that look alike in label, sex, view and age.

Each person group goes whole into one fold: large groups first, each to the
fold whose counts then lie nearest to its share of the whole.  Counted are
images, labels, each attribute, and the label within each attribute.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from training.datasets.index import DataIndex, IndexRow
from training.errors import TrainingError

AGE_EDGES_YEARS = (1, 5, 18, 35, 50, 65, 80)

ATTRIBUTES: dict[str, Callable[[IndexRow], str]] = {
    "sex": lambda row: row.sex or "?",
    "view": lambda row: row.view_position or "?",
    "age": lambda row: "?" if row.age_years is None else str(np.searchsorted(AGE_EDGES_YEARS, row.age_years, side="right")),
}


class SplitError(TrainingError):
    """Images of one person lie in two folds, or the data can't be split."""


def split_folds(index: DataIndex, folds: int, seed: int) -> NDArray[np.int64]:
    """Give `fold_N`, the fold (0 to folds - 1) of each row; the same for the same data and seed.

    Raises `SplitError` where a class has fewer person groups than there are folds.
    """
    groups = sorted({row.person_group for row in index.rows})
    number = {group: i for i, group in enumerate(groups)}
    group_N = np.array([number[row.person_group] for row in index.rows])
    for label in (0, 1):
        if len(set(group_N[index.label_N == label])) < folds:
            raise SplitError(f"label {label} has fewer person groups than {folds} folds: set folds lower")
    count_NA = _one_hot(index.rows)
    count_GA = np.zeros((len(groups), count_NA.shape[1]))
    np.add.at(count_GA, group_N, count_NA)
    fold_N: NDArray[np.int64] = _assign(count_GA, folds, seed)[group_N]
    refuse_leaks(index, fold_N)
    return fold_N


def refuse_leaks(index: DataIndex, fold_N: NDArray[np.int64]) -> None:
    """Raise `SplitError` where a person group, or one and the same file, lies in two folds."""
    seen: dict[str, int] = {}
    for row, fold in zip(index.rows, fold_N.tolist(), strict=True):
        for key in (f"group {row.person_group}", f"file {row.sha256}"):
            if seen.setdefault(key, fold) != fold:
                raise SplitError(f"{key} lies in folds {seen[key]} and {fold}: it would leak into validation")


def _assign(count_GA: NDArray[np.float64], folds: int, seed: int) -> NDArray[np.int64]:
    """Place each group where the weighted squared distance from equal shares grows least."""
    share_A = count_GA.sum(axis=0) / folds
    weight_A = 1.0 / np.sqrt(share_A)
    filled_FA = np.zeros((folds, len(share_A)))
    fold_G = np.zeros(len(count_GA), dtype=np.int64)
    shuffled = np.random.default_rng(seed).permutation(len(count_GA))
    for group in shuffled[np.argsort(-count_GA[shuffled, 0], kind="stable")]:
        before_FA, after_FA = filled_FA - share_A, filled_FA + count_GA[group] - share_A
        growth_F = ((after_FA**2 - before_FA**2) * weight_A).sum(axis=1)
        fold_G[group] = growth_F.argmin()
        filled_FA[fold_G[group]] += count_GA[group]
    return fold_G


def _one_hot(rows: Sequence[IndexRow]) -> NDArray[np.float64]:
    """Count columns [N, A] of each row: itself, its label, its attributes, its label within each attribute."""
    keys = [["all", f"label {row.label}"] for row in rows]
    for name, read in ATTRIBUTES.items():
        values = [read(row) for row in rows]
        if len(set(values)) > 1:
            for key, value, row in zip(keys, values, rows, strict=True):
                key += [f"{name} {value}", f"{name} {value} label {row.label}"]
    columns = ["all", *sorted({column for key in keys for column in key} - {"all"})]
    number = {column: i for i, column in enumerate(columns)}
    count_NA = np.zeros((len(rows), len(columns)))
    for i, key in enumerate(keys):
        count_NA[i, [number[column] for column in key]] = 1
    return count_NA
