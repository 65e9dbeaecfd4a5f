"""`golden.npz`: phantoms, and the answers that a model's graph must give to them.

Shape suffixes: N images, H and W input rows and columns, h and w map rows and columns, M columns of
metadata.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Self
from zipfile import ZipFile

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cxr.errors import BundleError

MAX_FILE_BYTES = 16 * 2**20
_MAX_ARRAY_BYTES = 64 * 2**20
_MAX_ARRAYS = 16
"""Limits of `golden.npz`; shipped ones have half a megabyte and eight arrays."""

_MAX_EXACT_TOLERANCE = 0.05
_MAX_FAST_TOLERANCE = 1.0
"""Largest tolerances that a bundle may state, in fp32 and in other precisions."""


@dataclass(frozen=True, slots=True)
class Golden:
    """Phantoms and the right answers to them.

    `image_NHW` is uint8; the outputs are float32.  `tolerances` maps
    "engine/precision" (as in "onnxruntime-cpu/fp32") to the largest error,
    relative to max(1, |value|).
    """

    image_NHW: NDArray[np.uint8]
    logit_N: NDArray[np.float32]
    cam_Nhw: NDArray[np.float32]
    novelty_N: NDArray[np.float32]
    tolerances: Mapping[str, float]
    metadata_NM: NDArray[np.float32] | None = None
    """Second input, of graphs that read metadata."""

    def tolerance(self, engine: str, precision: str) -> float:
        """Return the tolerance of an engine and precision.

        Raises:
            BundleError: the tolerance is missing, or is larger than any bundle may have.
        """
        largest = _MAX_EXACT_TOLERANCE if precision == "fp32" else _MAX_FAST_TOLERANCE
        try:
            tolerance = self.tolerances[f"{engine}/{precision}"]
        except KeyError as exc:
            raise BundleError(
                f"golden.npz states no tolerance for {engine} in {precision}"
            ) from exc
        if not 0 <= tolerance <= largest:  # written so that a NaN fails
            raise BundleError(f"golden.npz states a tolerance of more than {largest:g}")
        return tolerance

    def save(self, path: Path) -> None:
        """Write `golden.npz`."""
        names = sorted(self.tolerances)
        arrays: dict[str, NDArray[Any]] = {
            "image": self.image_NHW, "logit": self.logit_N, "cam": self.cam_Nhw,
            "novelty": self.novelty_N,
            "tolerance_names": np.array(names),
            "tolerances": np.array([self.tolerances[name] for name in names]),
        }  # fmt: skip
        if self.metadata_NM is not None:
            arrays["metadata"] = self.metadata_NM
        np.savez_compressed(path, allow_pickle=False, **arrays)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Return the golden answers in the bytes of `golden.npz`; raise `BundleError`.

        The sizes of all arrays are checked before they are inflated.
        """
        try:
            with ZipFile(BytesIO(data)) as archive:
                _check_sizes(archive)
            with np.load(BytesIO(data), allow_pickle=False) as arrays:
                tolerances = zip(
                    arrays["tolerance_names"].tolist(), arrays["tolerances"].tolist(), strict=True
                )
                golden = cls(
                    arrays["image"],
                    arrays["logit"],
                    arrays["cam"],
                    arrays["novelty"],
                    dict(tolerances),
                    arrays.get("metadata"),
                )
        except BundleError:
            raise
        except Exception as exc:  # damaged archives raise errors of zipfile, zlib, struct and numpy
            raise BundleError(f"golden.npz can't be read: {type(exc).__name__}") from exc
        if golden.image_NHW.ndim != 3 or not len(golden.image_NHW):
            raise BundleError("golden.npz holds no images")
        return golden


def _check_sizes(archive: ZipFile) -> None:
    """Raise `BundleError` for arrays that are larger than golden answers are."""
    if len(archive.infolist()) > _MAX_ARRAYS:
        raise BundleError(f"golden.npz holds more than {_MAX_ARRAYS} arrays")
    num_bytes = 0
    for entry in archive.infolist():
        with archive.open(entry) as file:
            version = npy.read_magic(file)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = read(file)
        num_bytes += math.prod(shape) * dtype.itemsize
        if dtype.hasobject or num_bytes > _MAX_ARRAY_BYTES or entry.file_size > _MAX_ARRAY_BYTES:
            raise BundleError(f"golden.npz holds more than {_MAX_ARRAY_BYTES} bytes of arrays")
