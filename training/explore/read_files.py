"""What each file of a data folder holds: read in parallel, by the decoder that serves and trains.

Decoding for a thumbnail is cheap, for a JPEG (in a DICOM file or alone) is decoded at an eighth
of its size; so the files that can't be read here are exactly those that training would leave out.

Shape suffixes: H rows, W columns.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from cxr.decode import DecodeLimits, decode, quiet_libraries
from cxr.dicom.header import text
from cxr.errors import ImageError
from cxr.preprocess import PreprocessSpec, preprocess
from cxr.radiograph import Metadata
from cxr.warning_codes import WarningCode
from training.hardware import available_cores

THUMB_PIXELS = 64
"""Rows and columns of a thumbnail: enough for means, for likeness, and for an average image."""

_FILES_A_TASK = 8


@dataclass(frozen=True, slots=True)
class Scan:
    """The content of one file. If it can't be read, `code` and `detail` have the reason and all
    else is empty.
    """

    size_bytes: int
    code: str = ""
    detail: str = ""
    rows: int = 0
    columns: int = 0
    metadata: Metadata = Metadata()  # noqa: RUF009 - frozen
    warnings: tuple[str, ...] = ()
    implausible_age: str = ""
    """The age as the file states it, if it is implausible and was set to missing."""
    thumb_HW: NDArray[np.uint8] | None = None
    """The image, squeezed to a small square."""

    @property
    def readable(self) -> bool:
        """Whether training would use it."""
        return self.thumb_HW is not None


def scan_files(paths: Iterable[Path]) -> Iterator[Scan]:
    """Scan files in one process for each core. Yield the scans in order."""
    with ProcessPoolExecutor(
        available_cores(), mp_context=get_context("spawn"), initializer=quiet_libraries
    ) as pool:
        yield from pool.map(scan_file, paths, chunksize=_FILES_A_TASK)


def scan_file(path: Path) -> Scan:
    """Decode one file to a thumbnail and keep what it states."""
    data = path.read_bytes()
    scan = partial(Scan, len(data))
    try:
        radiograph = decode(data, limits=DecodeLimits(), size=THUMB_PIXELS)
    except ImageError as exc:
        return scan(code=exc.code, detail=str(exc))
    codes = tuple(warning.code.value for warning in radiograph.warnings)
    return scan(
        rows=radiograph.processing.rows,
        columns=radiograph.processing.columns,
        metadata=radiograph.metadata,
        warnings=codes,
        implausible_age=_stated_age(data) if WarningCode.AGE_IMPLAUSIBLE in codes else "",
        thumb_HW=preprocess(radiograph, PreprocessSpec(size=THUMB_PIXELS)),
    )


def _stated_age(data: bytes) -> str:
    stated = text(
        dcmread(BytesIO(data), stop_before_pixels=True, specific_tags=["PatientAge"]), "PatientAge"
    )
    return stated or "from the birth date"
