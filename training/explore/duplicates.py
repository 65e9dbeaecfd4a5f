"""Find pictures that are the same, or nearly.

Shape suffixes: N images, B a block of them, P pixels, H rows, W columns.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NEAR = 0.98
"""Correlation of 32 x 32 thumbnails from which two pictures count as nearly the same."""

MAX_PAIRS = 20_000
"""Pairs that are kept. n near copies give n * (n - 1) / 2 pairs, so the rest is only counted."""

_BLOCK_IMAGES = 1024


@dataclass(frozen=True, slots=True)
class NearPair:
    """Two images, by position, whose thumbnails correlate."""

    one: int
    other: int
    correlation: float


def same_files(sha256_N: Iterable[str]) -> list[list[int]]:
    """Return the groups of positions, of two and more, that hold the same bytes."""
    places: defaultdict[str, list[int]] = defaultdict(list)
    for position, digest in enumerate(sha256_N):
        places[digest].append(position)
    return [group for group in places.values() if len(group) > 1]


def near_pairs(thumb_NHW: NDArray[np.uint8]) -> tuple[list[NearPair], int]:
    """Return the pairs that correlate by `NEAR` and more, most alike first, and how many there are
    in all.

    Every image is compared with every other, a block at a time: 12 000 images are 72 million
    pairs, some seconds of matrix products.  A picture without any contrast is like no other.
    """
    unit_NP = _unit_vectors(thumb_NHW)
    pairs: list[NearPair] = []
    total = 0
    for start in range(0, len(unit_NP), _BLOCK_IMAGES):
        likeness_BN = unit_NP[start : start + _BLOCK_IMAGES] @ unit_NP[start:].T
        ones, others = np.nonzero(np.triu(likeness_BN >= NEAR, k=1))
        total += len(ones)
        room = MAX_PAIRS - len(pairs)
        for one, other in zip(ones[:room].tolist(), others[:room].tolist(), strict=True):
            pairs.append(
                NearPair(start + one, start + other, min(1.0, float(likeness_BN[one, other])))
            )
    return sorted(pairs, key=lambda pair: (-pair.correlation, pair.one, pair.other)), total


def clusters(pairs: Sequence[NearPair]) -> list[list[int]]:
    """Join pairs that share an image. Return the sorted positions of each cluster."""
    members: dict[int, set[int]] = {}
    for pair in pairs:
        joined = members.get(pair.one, {pair.one}) | members.get(pair.other, {pair.other})
        members.update(dict.fromkeys(joined, joined))
    return sorted({id(cluster): sorted(cluster) for cluster in members.values()}.values())


def _unit_vectors(thumb_NHW: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Halve thumbnails to 32 x 32 (for those of 64), and bring each to mean 0 and length 1."""
    halved = thumb_NHW.reshape(len(thumb_NHW), thumb_NHW.shape[1] // 2, 2, -1, 2).mean(
        axis=(2, 4), dtype=np.float32
    )
    centred_NP = halved.reshape(len(halved), -1)
    centred_NP -= centred_NP.mean(axis=1, keepdims=True)
    length_N1 = np.linalg.norm(centred_NP, axis=1, keepdims=True)
    unit_NP: NDArray[np.float32] = centred_NP / np.maximum(length_N1, 1e-3)
    return unit_NP
