"""Check folds: how far each attribute is from its even share, and the p-value of that difference.

Shape suffixes: N images, F folds, V values of an attribute.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.index import DataIndex, IndexRow

AGE_EDGES_YEARS = (1, 5, 18, 35, 50, 65, 80)

ATTRIBUTES: dict[str, Callable[[IndexRow], str]] = {
    "label": lambda row: str(row.label),
    "sex": lambda row: row.sex or "?",
    "view": lambda row: row.view_position or "?",
    "age": lambda row: (
        "?"
        if row.age_years is None
        else str(np.searchsorted(AGE_EDGES_YEARS, row.age_years, side="right"))
    ),
}
"""What folds must have alike; a value that no file states counts as a value."""

_TOLERANCE = 0.005
_TOLERANCE_IMAGES = 1.5


@dataclass(frozen=True, slots=True)
class Balance:
    """How evenly one attribute lies over the folds."""

    attribute: str
    off_images: float
    """By how many images the worst fold misses its share of a value, in the fold and value that are
    worst for the gate."""
    limit_images: float
    """How many it may miss there."""
    p_value: float | None
    """Of a chi-squared test that folds are alike, images taken as independent; None if there is
    one value only."""

    @property
    def holds(self) -> bool:
        """Whether the gate holds."""
        return self.off_images <= self.limit_images + 1e-9


def limit_images(fold_size_F: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far a value's count may be from its share of each fold: half a per cent of the
    fold, or 1.5 images.
    """
    return np.maximum(_TOLERANCE * fold_size_F, _TOLERANCE_IMAGES)


def check_folds(index: DataIndex, fold_N: NDArray[np.int64]) -> tuple[Balance, ...]:
    """Measure every attribute of a split."""
    return tuple(
        _check(name, [read(row) for row in index.rows], fold_N) for name, read in ATTRIBUTES.items()
    )


def age_difference(index: DataIndex, fold_N: NDArray[np.int64]) -> float | None:
    """Return the smallest p-value of Kolmogorov-Smirnov tests of each fold's ages against the rest,
    times the folds.
    """
    known = [
        (row.age_years, fold)
        for row, fold in zip(index.rows, fold_N.tolist(), strict=True)
        if row.age_years is not None
    ]
    if not known:
        return None
    years_N, fold_of_N = (
        np.array([years for years, _ in known]),
        np.array([fold for _, fold in known]),
    )
    folds = np.unique(fold_of_N)
    if len(folds) < 2:
        return None
    return min(
        1.0,
        len(folds)
        * min(ks_p_value(years_N[fold_of_N == fold], years_N[fold_of_N != fold]) for fold in folds),
    )


def chi_squared_p_value(count_FV: NDArray[np.int64]) -> float | None:
    """Return the p-value of Pearson's test of homogeneity, for a table without empty rows and
    columns. Return None for a single row or column.
    """
    freedom: int = (count_FV.shape[0] - 1) * (count_FV.shape[1] - 1)
    if freedom == 0:
        return None
    expected_FV = np.outer(count_FV.sum(axis=1), count_FV.sum(axis=0)) / count_FV.sum()
    half = float(((count_FV - expected_FV) ** 2 / expected_FV).sum()) / 2
    if half == 0:
        return 1.0
    # The survival function for whole degrees of freedom, Abramowitz and Stegun 26.4.4 and 26.4.5.
    odd = freedom % 2
    terms = (
        math.exp(i / 2 * math.log(half) - half - math.lgamma(i / 2 + 1))
        for i in range(odd, freedom - 1, 2)
    )
    return min(1.0, odd * math.erfc(math.sqrt(half)) + sum(terms))


def ks_p_value(one_N: NDArray[np.float64], other_N: NDArray[np.float64]) -> float:
    """Return the two-sample Kolmogorov-Smirnov p-value by its limiting distribution (Smirnov
    1948).
    """
    both_N = np.sort(np.concatenate([one_N, other_N]))
    shares = [
        np.searchsorted(np.sort(part_N), both_N, side="right") / len(part_N)
        for part_N in (one_N, other_N)
    ]
    reach = float(np.abs(shares[0] - shares[1]).max()) * math.sqrt(
        len(one_N) * len(other_N) / len(both_N)
    )
    if reach < 0.2:  # the series does not converge there, and the value is 1 to twelve places
        return 1.0
    terms = (math.copysign(math.exp(-2 * (k * reach) ** 2), k % 2 - 0.5) for k in range(1, 101))
    return min(1.0, max(0.0, 2 * sum(terms)))


def balance_lines(index: DataIndex, fold_N: NDArray[np.int64]) -> list[str]:
    """Return a line for each attribute on how well the folds are balanced."""
    lines = [
        f"folds by {item.attribute}: off by {item.off_images:.1f} images, limit "
        f"{item.limit_images:.1f}, "
        f"chi2 p {item.p_value:.2f}{'' if item.holds else ' - OVER THE LIMIT'}"
        for item in check_folds(index, fold_N)
        if item.p_value is not None
    ]
    p_value = age_difference(index, fold_N)
    return (
        lines
        if p_value is None
        else [*lines, f"folds by age in years: Kolmogorov-Smirnov p {p_value:.2f}, over all folds"]
    )


def _check(name: str, values: Sequence[str], fold_N: NDArray[np.int64]) -> Balance:
    value_N = np.unique(np.array(values), return_inverse=True)[1]
    count_FV = np.zeros((int(fold_N.max()) + 1, int(value_N.max()) + 1), dtype=np.int64)
    np.add.at(count_FV, (fold_N, value_N), 1)
    count_FV = count_FV[count_FV.any(axis=1)]
    size_F1 = count_FV.sum(axis=1, keepdims=True)
    off_FV = np.abs(count_FV - size_F1 * count_FV.sum(axis=0) / count_FV.sum())
    limit_FV = np.broadcast_to(limit_images(size_F1.astype(np.float64)), off_FV.shape)
    worst = int((off_FV - limit_FV).argmax())
    return Balance(
        name, float(off_FV.flat[worst]), float(limit_FV.flat[worst]), chi_squared_p_value(count_FV)
    )
