"""`golden.npz`: phantoms, and the answers that a model's graph must give to them.

Shape suffixes: N images, H and W input rows and columns, h and w map rows and columns, M columns of
metadata.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from cxr.errors import BundleError


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
        """Return the tolerance of an engine and precision; raise `BundleError` if it is missing."""
        try:
            return self.tolerances[f"{engine}/{precision}"]
        except KeyError as exc:
            raise BundleError(
                f"golden.npz states no tolerance for {engine} in {precision}"
            ) from exc

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
    def load(cls, path: Path) -> Self:
        """Read `golden.npz`; raises `BundleError`."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                tolerances = zip(
                    arrays["tolerance_names"].tolist(), arrays["tolerances"].tolist(), strict=True
                )
                beside = arrays.get("metadata")
                return cls(
                    arrays["image"],
                    arrays["logit"],
                    arrays["cam"],
                    arrays["novelty"],
                    dict(tolerances),
                    beside,
                )
        except (OSError, EOFError, ValueError, KeyError, BadZipFile) as exc:
            raise BundleError(f"golden.npz can't be read: {type(exc).__name__}") from exc
