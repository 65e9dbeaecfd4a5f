"""Patient-disjoint folds that look alike in label, sex, view and age.

Each person group goes into one fold. Large groups come first, each to the fold whose counts are
then nearest to its share.  Counted are images, labels, each attribute, and the label within each
attribute.  If an attribute is then over its limit (`fold_balance`), groups are swapped and moved at
random until it holds; no step makes the balance worse.

Shape suffixes: N images, G person groups, F folds, A counted columns.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.data.fold_balance import ATTRIBUTES, limit_images
from training.data.index import DataIndex, IndexRow
from training.errors import TrainingError

_SWAPS = 10_000
"""Attempts to repair a greedy split that is over the limit; two seconds at most if nothing
helps.
"""


class SplitError(TrainingError):
    """Images of one person lie in two folds, or the data can't be split."""


def split_folds(index: DataIndex, folds: int, seed: int) -> NDArray[np.int64]:
    """Return `fold_N`, the fold (0 to folds - 1) of each row; the same for the same data and seed.

    Raise `SplitError` if a class has fewer person groups than there are folds.
    """
    groups = sorted({row.person_group for row in index.rows})
    number = {group: i for i, group in enumerate(groups)}
    group_N = np.array([number[row.person_group] for row in index.rows])
    for label in (0, 1):
        if len(set(group_N[index.label_N == label])) < folds:
            raise SplitError(
                f"label {label} has fewer person groups than {folds} folds: set folds lower"
            )
    count_NA, gated_A = _one_hot(index.rows)
    count_GA = np.zeros((len(groups), count_NA.shape[1]))
    np.add.at(count_GA, group_N, count_NA)
    fold_G = _assign(count_GA, folds, seed)
    fold_N: NDArray[np.int64] = _mend(count_GA, gated_A, fold_G, folds, seed)[group_N]
    refuse_leaks(index, fold_N)
    return fold_N


def split_measured(
    index: DataIndex, measure_on: Sequence[str], folds: int, seed: int
) -> NDArray[np.int64]:
    """Return `fold_N` of folds that are made of some sources' images, all if none is named.

    An image of another source follows its person, and is in no fold (-1) if nothing of that person
    is measured on.  Raises `SplitError` as `split_folds` does, and if no image is of such a source.
    """
    if not measure_on:
        return split_folds(index, folds, seed)
    measured = [i for i, row in enumerate(index.rows) if row.source in measure_on]
    if not measured:
        known = ", ".join(sorted({row.source for row in index.rows}))
        raise SplitError(f"no image is of {', '.join(measure_on)}; the sources are: {known}")
    part = index.subset(measured)
    fold_M = split_folds(part, folds, seed)
    fold_of = dict(zip((row.person_group for row in part.rows), fold_M.tolist(), strict=True))
    fold_N = np.array([fold_of.get(row.person_group, -1) for row in index.rows], dtype=np.int64)
    refuse_leaks(index, fold_N)
    return fold_N


def refuse_leaks(index: DataIndex, fold_N: NDArray[np.int64]) -> None:
    """Raise `SplitError` if a person group, or one file, lies in two folds."""
    seen: dict[str, int] = {}
    for row, fold in zip(index.rows, fold_N.tolist(), strict=True):
        for key in (f"group {row.person_group}", f"file {row.sha256}"):
            if seen.setdefault(key, fold) != fold:
                raise SplitError(
                    f"{key} lies in folds {seen[key]} and {fold}: it would leak into validation"
                )


def _assign(count_GA: NDArray[np.float64], folds: int, seed: int) -> NDArray[np.int64]:
    """Put each group into the fold that adds least to the weighted squared distance from equal
    shares.
    """
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


def _mend(
    count_GA: NDArray[np.float64],
    gated_A: NDArray[np.bool_],
    fold_G: NDArray[np.int64],
    folds: int,
    seed: int,
) -> NDArray[np.int64]:
    """Swap the folds of two groups, or move a group, until no gated column and no fold size is over
    its limit.
    """
    filled_FA = np.zeros((folds, count_GA.shape[1]))
    np.add.at(filled_FA, fold_G, count_GA)
    if not _over(filled_FA, gated_A)[:, 1:].any():
        return fold_G
    best = _unrest(filled_FA, gated_A)
    rng = np.random.default_rng([seed, folds])
    for one, other, swap in rng.integers((len(fold_G), len(fold_G), 2), size=(_SWAPS, 3)).tolist():
        if best[0] == 0:
            break
        here, there = fold_G[[one, other]].tolist()
        step_A = count_GA[one] - swap * count_GA[other]
        tried_FA = filled_FA.copy()
        tried_FA[here] -= step_A
        tried_FA[there] += step_A
        tried = _unrest(tried_FA, gated_A)
        if here != there and tried < best:
            best, filled_FA = tried, tried_FA
            fold_G[one], fold_G[other] = there, here if swap else there
    return fold_G


def _unrest(filled_FA: NDArray[np.float64], gated_A: NDArray[np.bool_]) -> tuple[float, float]:
    """Return by how many images, squared and summed, folds are over their limits; then the distance
    that the greedy lessens.
    """
    share_A = filled_FA.mean(axis=0)
    distance = ((filled_FA - share_A) ** 2 / np.sqrt(share_A)).sum()
    return float(np.square(_over(filled_FA, gated_A)).sum()), float(distance)


def _over(filled_FA: NDArray[np.float64], gated_A: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return by how many images each fold is over its limit: in size first, then in each gated
    column for its size.
    """
    size_F1, share_A = filled_FA[:, :1], filled_FA.mean(axis=0)
    off_FA = np.abs(filled_FA - size_F1 * share_A / share_A[0])[:, gated_A]
    return (np.hstack([np.abs(size_F1 - share_A[0]), off_FA]) - limit_images(size_F1)).clip(min=0)


def _one_hot(rows: Sequence[IndexRow]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Count each row's columns: itself, its label, its attributes, its label within each attribute.

    Returns:
        The counts [N, A], and which of the columns [A] are plain attributes, whose balance is
        gated.
    """
    keys = [["all", f"label {row.label}"] for row in rows]
    gated = {f"label {label}" for label in (0, 1)}
    for name, read in ATTRIBUTES.items():
        values = [read(row) for row in rows]
        if len(set(values)) > 1 and name != "label":
            gated.update(f"{name} {value}" for value in values)
            for key, value, row in zip(keys, values, rows, strict=True):
                key += [f"{name} {value}", f"{name} {value} label {row.label}"]
    columns = ["all", *sorted({column for key in keys for column in key} - {"all"})]
    number = {column: i for i, column in enumerate(columns)}
    count_NA = np.zeros((len(rows), len(columns)))
    for i, key in enumerate(keys):
        count_NA[i, [number[column] for column in key]] = 1
    return count_NA, np.array([column in gated for column in columns])
